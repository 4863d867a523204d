"""A valkey-server for one test, which starts, freezes, kills and fills it."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.embedded.launch import find_binary
from tests.support.waiting import wait_until


class Valkey:
    """One server; it listens on a unix socket only, unless its configuration says otherwise."""

    def __init__(self, folder: Path, *config: str, wrapper: tuple[str, ...] = ()) -> None:
        """`config`: further lines; `wrapper`: a command in front, with its arguments."""
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self.process: asyncio.subprocess.Process | None = None
        self._config = config
        self._wrapper = wrapper

    @property
    def address(self) -> str:
        """Its URL, as in REDIS_URL."""
        return f"unix://{self.socket}"

    async def start(self) -> None:
        """Run it, and wait until it accepts connections; it may still load its data."""
        lines = ("port 0", f"unixsocket {str(self.socket)!r}", f"dir {str(self.folder)!r}")
        self.socket.unlink(missing_ok=True)
        self.process = await asyncio.create_subprocess_exec(
            *self._wrapper,
            find_binary(),
            "-",
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        assert self.process.stdin
        self.process.stdin.write("\n".join([*lines, "save ''", *self._config]).encode())
        self.process.stdin.close()
        await wait_until("a valkey-server", self._answers)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal: SIGSTOP freezes it, SIGCONT resumes it."""
        assert self.process
        self.process.send_signal(number)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it; with SIGKILL at once. Its files stay."""
        if self.process and self.process.returncode is None:
            self.send_signal(signal.SIGCONT)
            self.send_signal(number)
            await self.process.wait()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return bool(await reader.readline())
        finally:
            writer.close()


@asynccontextmanager
async def valkey_server(
    folder: Path, *config: str, wrapper: tuple[str, ...] = ()
) -> AsyncIterator[Valkey]:
    """Run a server, and end it afterwards; its files stay."""
    server = Valkey(folder, *config, wrapper=wrapper)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def client(address: str) -> AsyncIterator[Redis]:
    """A client as the product opens it."""
    redis = connect(address)
    try:
        yield redis
    finally:
        await close(redis)
