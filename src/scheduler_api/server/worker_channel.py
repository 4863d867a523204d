"""The channel between the parent process and a worker: one JSON list a line, over a socket pair.

The end of the stream means that the other process is gone, however it ended, because the kernel
closes its socket. So no process id is watched, and it works on every POSIX system.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Final, Self

# parent → worker
STOP: Final = "stop"  # drain, then exit
FORCE_STOP: Final = "force_stop"  # do not wait for open requests
# worker → parent
HEARTBEAT: Final = "heartbeat"  # the event loop runs
READY: Final = "ready"  # the worker accepts requests
START_REFUSED: Final = "start_refused"  # the worker cannot start; with the reason
WRONG_SETTINGS: Final = "wrong_settings"  # the same, because of a setting


class Channel:
    """One end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """A channel over this socket, which it owns from now on."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, *words: str) -> None:
        """Send one message; it is lost if the other process is gone."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(words).encode() + b"\n")

    async def messages(self) -> AsyncIterator[list[str]]:
        """The messages of the other process, until it is gone."""
        while words := await self.receive():
            yield words

    async def receive(self) -> list[str]:
        """The next message; an empty list if the other process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return []
        # A line without its end was cut off by the end of the process.
        return list(json.loads(line)) if line.endswith(b"\n") else []

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
