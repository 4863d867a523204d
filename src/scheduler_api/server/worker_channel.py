"""What the parent of the workers and a worker say to each other, over a pair of sockets.

One word a line. The end of the stream says that the other process is gone, however it ended: the
kernel closes its end. So no process id is watched, and it works on every POSIX system.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Final, Self

# parent → worker
STOP: Final = "stop"  # drain, then end
HURRY: Final = "hurry"  # do not wait for what is open
# worker → parent
ALIVE: Final = "alive"  # the event loop runs
READY: Final = "ready"  # it takes traffic
REFUSED: Final = "refused"  # it does not start: why
WRONG_SETTINGS: Final = "wrong_settings"  # the same, because of a setting


class Channel:
    """One end of the pair."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Take over that socket."""
        return cls(*await asyncio.open_unix_connection(sock=end))

    def say(self, *words: str) -> None:
        """Send them; what the other process does not live to read is lost."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(words).encode() + b"\n")

    async def heard(self) -> AsyncIterator[list[str]]:
        """What the other process says, until it is gone."""
        while words := await self.next():
            yield words

    async def next(self) -> list[str]:
        """The next words; none: the other process is gone."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return []
        # A line that was cut off by the end of the process says nothing.
        return list(json.loads(line)) if line.endswith(b"\n") else []

    def close(self) -> None:
        """Say no more."""
        self._writer.close()
