"""The embedded store of one data folder: one process owns and supervises it, the others join.

When the owner ends, another process of the folder takes over and starts the store again.
"""

import asyncio
import contextlib
import fcntl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.file_lock import FileLock
from scheduler_api.store.embedded.server import (
    PONG,
    READY_POLL_INTERVAL,
    START_TIMEOUT,
    Server,
    Watch,
    send_command,
)
from scheduler_api.store.embedded.socket_path import SocketPath

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

DEFAULT_WATCH: Final = Watch()
CANCEL_INTERVAL: Final = 1.0  # seconds; a cancel is repeated, as wait_for of 3.11 can swallow one
TAKEOVER_POLL_INTERVAL: Final = 0.25  # seconds between two attempts of a joined process to own
MIN_STORE_RESTART_DELAY: Final = 0.1  # seconds; doubles with each failure of the store
MAX_STORE_RESTART_DELAY: Final = 5.0  # seconds; a store that ran longer resets the delay


class EmbeddedStore:
    """One private valkey-server for all processes of one data folder."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str = "always",
        max_memory: int = 0,
        binary: Path | None = None,
        watch: Watch = DEFAULT_WATCH,
        log: "FilteringBoundLogger | None" = None,
    ) -> None:
        """`max_memory`: bytes of data; a full store refuses new messages; 0: no limit."""
        self.folder = folder.resolve()
        self._socket = SocketPath(self.folder)
        self.owner = False  # whether this process runs the store
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._members = FileLock(self.folder / "members.lock")
        self._ownership = FileLock(self.folder / "owner.lock")
        config = {"fsync": fsync, "max_memory": str(max_memory)}
        self._server = Server(self.folder, self._socket, config, binary, watch, self._log)
        self._supervision: asyncio.Task[None] | None = None

    @property
    def socket(self) -> Path:
        """The path of the socket."""
        return self._socket.path

    async def start(self) -> None:
        """Own the folder and start its store, or join its owner. Raises: StoreStartFailed."""
        try:
            self._prepare_folder()
            await self._members.acquire_when_free(fcntl.LOCK_SH)
            await self._own_or_join()
        except OSError as error:
            await self.stop()
            reason = f"The data folder {self.folder} cannot be used: {error}"
            raise StoreStartFailed(reason) from error
        except BaseException:
            await self.stop()
            raise
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self, timeout: float = 0.0) -> None:
        """Leave the store. An owner waits up to `timeout` seconds for the others, then stops it."""
        self._members.release()
        if self.owner:
            with contextlib.suppress(OSError):  # the folder was removed
                await self._members.acquire_when_free(fcntl.LOCK_EX, timeout)
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
            await asyncio.wait([supervision], timeout=CANCEL_INTERVAL)

    def _prepare_folder(self) -> None:
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        self._socket.open()

    async def _own_or_join(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not self._ownership.acquire():
            if await send_command(self.socket, b"PING") == PONG:
                self._log.info("store_joined")
                return
            if time.monotonic() > deadline:
                raise StoreStartFailed(
                    f"Another process owns {self.folder}, but its store does not reply. "
                    "To share a store between machines, set REDIS_URL."
                )
            await asyncio.sleep(READY_POLL_INTERVAL)
        self.owner = True
        await self._server.start()

    async def _supervise(self) -> None:
        while True:
            if not self.owner:
                await self._take_over()
            await self._keep_running()
            self.owner = False
            await self._server.stop()
            self._log.error("store_ownership_lost")

    async def _take_over(self) -> None:
        """Wait until nobody owns the folder, then own it. Creates the folder if it was removed."""
        owned = False
        while not owned:
            with contextlib.suppress(OSError):
                self._prepare_folder()
                self._stay_member()
                owned = self._ownership.acquire()
            if not owned:
                await asyncio.sleep(TAKEOVER_POLL_INTERVAL)
        self.owner = True
        self._log.warning("store_taken_over")
        await self._start_or_log()

    def _stay_member(self) -> None:
        """Keep the members lock: without it, a stopping owner would not wait for this process."""
        if not self._members.held():  # the file was removed
            self._members.acquire(fcntl.LOCK_SH)

    async def _keep_running(self) -> None:
        """Start the store again after each failure, while this process owns the folder."""
        delay = MIN_STORE_RESTART_DELAY
        while self._owned():
            began = time.monotonic()
            await self._server.wait_for_failure(self._owned)
            if time.monotonic() - began > MAX_STORE_RESTART_DELAY:
                delay = MIN_STORE_RESTART_DELAY
            await asyncio.sleep(delay)
            delay = min(2 * delay, MAX_STORE_RESTART_DELAY)
            if self._owned():
                await self._start_or_log()

    def _owned(self) -> bool:
        """Whether this process owns the folder. Takes the lock again if its file was removed."""
        if self._ownership.held():
            return True
        # If the folder is gone and cannot be created, no other process can own it.
        with contextlib.suppress(OSError):
            self._prepare_folder()
            return self._ownership.acquire()
        return True

    async def _start_or_log(self) -> None:
        try:
            await self._server.start()
        except (StoreStartFailed, OSError) as error:
            self._log.error("store_start_failed", reason=str(error))
