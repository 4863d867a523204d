"""A store that somebody else runs, which tests stop, kill and start."""

import asyncio
import signal
import subprocess
from pathlib import Path
from typing import Final

from scheduler_api.store.embedded import find_binary
from tests.support.waiting import wait_until
from tests.system.processes import free_port

PASSWORD: Final = "pass word/of:the@store"


class Outside:
    """A valkey-server that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.socket = folder / "outside.sock"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it, and wait until it takes connections."""
        config = (
            f"port {self.port}\nbind 127.0.0.1\nunixsocket {str(self.socket)!r}\n"
            f"requirepass {PASSWORD!r}\ndir {str(self.folder)!r}\n"
            "appendonly yes\nappendfsync always\nsave ''\n"
        )
        self._process = await asyncio.create_subprocess_exec(
            find_binary(), "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        assert self._process.stdin
        self._process.stdin.write(config.encode())
        self._process.stdin.close()
        await wait_until("the outside store", self._answers)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; what was written stays."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(number)
            await self._process.wait()

    @property
    def environ(self) -> dict[str, str]:
        """Settings of a service that is to use it."""
        return {
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(self.port),
            "REDIS_PASSWORD": PASSWORD,
        }

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.readline()).startswith(b"-NOAUTH")
        finally:
            writer.close()
