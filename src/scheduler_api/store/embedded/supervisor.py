"""Supervises the private valkey-server of one data folder; asked for by store.py when no outside
Redis is set. All processes of the folder share one store: one of them owns it, the rest join.
"""

import asyncio
import contextlib
import fcntl
import time
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.file_lock import FileLock
from scheduler_api.store.embedded.server import PONG, READY_PAUSE, START_LIMIT, Server, Watch, ask
from scheduler_api.store.embedded.socket_path import SocketPath

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

WATCH = Watch()
CANCEL_AGAIN = 1.0  # seconds until a cancel is repeated: wait_for of Python 3.11 can swallow one
SUCCESSION_PAUSE = 0.25  # seconds between two looks of a joined process at owner.lock
PAUSE_FIRST = 0.1  # seconds before a store that died is started again; doubles each time
PAUSE_LAST = 5.0  # seconds, where that doubling ends; a store that lived longer resets it


class EmbeddedStore:
    """One private valkey-server for all processes of one data folder."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str = "always",
        max_memory: int = 0,
        binary: Path | None = None,
        watch: Watch = WATCH,
        log: "FilteringBoundLogger | None" = None,
    ) -> None:
        """`max_memory`: bytes of its data, beyond which new messages are refused; 0: no limit."""
        self.folder = folder.resolve()
        self._socket = SocketPath(self.folder)
        self.owner = False
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._members = FileLock(self.folder / "members.lock")
        self._ownership = FileLock(self.folder / "owner.lock")
        config = {"fsync": fsync, "max_memory": str(max_memory)}
        self._server = Server(self.folder, self._socket, config, binary, watch, self._log)
        self._supervision: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        """Where this process reaches the store."""
        return self._socket.path

    async def start(self) -> None:
        """Own the folder's store and start it, or join the owner's; StoreStartFailed if neither."""
        try:
            self._prepare_folder()
            await self._members.wait(fcntl.LOCK_SH)
            await self._own_or_join()
        except OSError as error:
            await self.stop()
            reason = f"The data folder {self.folder} cannot be used: {error}"
            raise StoreStartFailed(reason) from error
        except BaseException:
            await self.stop()
            raise
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self, patience: float = 0.0) -> None:
        """Leave; an owner first waits `patience` seconds for the others, then ends the store."""
        self._members.release()
        if self.owner:
            with contextlib.suppress(OSError):  # the folder was removed
                await self._members.wait(fcntl.LOCK_EX, patience)
        await self._end_supervision()
        ended = await self._server.stop()
        self.owner = False
        self._ownership.release()
        self._members.release()
        self._socket.close()
        if ended:
            self._log.info("store_stopped")

    async def _end_supervision(self) -> None:
        supervision, self._supervision = self._supervision, None
        while supervision and not supervision.done():
            supervision.cancel()
            await asyncio.wait([supervision], timeout=CANCEL_AGAIN)

    def _prepare_folder(self) -> None:
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        self._socket.open()

    async def _own_or_join(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not self._ownership.take():
            if await ask(self.socket, b"PING") == PONG:
                self._log.info("store_joined")
                return
            if time.monotonic() > deadline:
                raise StoreStartFailed(
                    f"Another process owns {self.folder}, and its store does not answer. "
                    "To share a store between machines, set REDIS_URL."
                )
            await asyncio.sleep(READY_PAUSE)
        self.owner = True
        await self._server.start()

    async def _supervise(self) -> None:
        while True:
            if not self.owner:
                await self._succeed()
            await self._keep_running()
            self.owner = False
            await self._server.stop()
            self._log.error("store_ownership_lost")

    async def _succeed(self) -> None:
        """Wait until nobody owns the folder; it may be removed meanwhile, and made anew."""
        owned = False
        while not owned:
            with contextlib.suppress(OSError):
                self._prepare_folder()
                self._stay_member()
                owned = self._ownership.take()
            if not owned:
                await asyncio.sleep(SUCCESSION_PAUSE)
        self.owner = True
        self._log.warning("store_taken_over")
        await self._start_or_log()

    def _stay_member(self) -> None:
        """Without it a stopping owner would end the store that we still use."""
        if not self._members.held():  # the file was removed
            self._members.take(fcntl.LOCK_SH)

    async def _keep_running(self) -> None:
        """As long as we own it."""
        pause = PAUSE_FIRST
        while self._owned():
            began = time.monotonic()
            await self._server.failed(self._owned)
            pause = PAUSE_FIRST if time.monotonic() - began > PAUSE_LAST else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_LAST)
            if self._owned():
                await self._start_or_log()

    def _owned(self) -> bool:
        """Whether the folder is ours; a lock that was removed from it is taken anew if possible."""
        if self._ownership.held():
            return True
        with contextlib.suppress(OSError):  # no folder, and none can be made: then nobody has it
            self._prepare_folder()
            return self._ownership.take()
        return True

    async def _start_or_log(self) -> None:
        try:
            await self._server.start()
        except (StoreStartFailed, OSError) as error:
            self._log.error("store_start_failed", reason=str(error))
