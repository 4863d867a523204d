"""The process of the embedded store: start it, watch it, stop it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.file_lock import FileLock, file_identity
from scheduler_api.store.embedded.launch import find_binary, launch
from scheduler_api.store.embedded.socket_path import SOCKET_NAME, SocketPath

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

START_TIMEOUT: Final = 600.0  # seconds that the store may load its data
STOP_TIMEOUT: Final = 60.0  # seconds from SIGTERM to SIGKILL
COMMAND_TIMEOUT: Final = 1.0  # seconds for one PING or SHUTDOWN, with the connection
MAX_SHUTDOWNS: Final = 30  # sent to an orphan, about one per second, before the start fails
READY_POLL_INTERVAL: Final = 0.01  # seconds
MAX_LOG_BYTES: Final = 5 * 1024 * 1024  # of store.log; a start moves a larger one to store.log.1
LOG_LINES_SHOWN: Final = 8  # last lines of store.log in the error of a failed start
PONG: Final = b"+PONG\r\n"  # the reply of a store that has loaded its data

ORPHAN_ERROR: Final = (
    "An earlier store still runs on {folder} and does not stop when asked to: "
    "stop its valkey-server process, then start again."
)


class Watch(NamedTuple):
    """How often the owner checks the running store, and when it replaces a hanging one."""

    check_interval: float = 1.0  # seconds between two checks of the store's files
    checks_per_ping: int = 10  # after an unanswered PING, every check sends one
    max_unanswered_pings: int = 30  # then the store is killed and started again


class Server:
    """The valkey-server process, in the process that owns the data folder."""

    def __init__(
        self,
        folder: Path,
        socket: SocketPath,
        config: Mapping[str, str],
        binary: Path | None,
        watch: Watch,
        log: "FilteringBoundLogger",
    ) -> None:
        self._folder, self._socket, self._config = folder, socket, config
        self._binary = binary  # None: find_binary()
        self._watch = watch
        self._log = log
        self._log_file = folder / "store.log"
        self._process: asyncio.subprocess.Process | None = None
        self._files: dict[Path, object] = {}  # the store's files → identity at its start

    async def start(self) -> None:
        """Stop any earlier store of the folder, start a new one, and wait until it is ready."""
        began = time.monotonic()
        lock = FileLock(self._folder / "store.lock")
        try:
            await self._stop_orphan(lock)
            await self._stop_unlocked_orphan()
            self._rotate_log()
            log_offset = _size(self._log_file)
            binary = self._binary or find_binary()
            self._process = await launch(
                binary, self._folder, self._log_file, self._config, lock.descriptor
            )
        finally:
            lock.release()  # only this copy: from now on, the store alone holds the lock
        try:
            await self._wait_until_ready(self._process, log_offset)
        except BaseException:
            await self.stop()
            raise
        files = (lock.path, self._folder / SOCKET_NAME)
        self._files = {path: file_identity(path) for path in files}
        seconds = round(time.monotonic() - began, 3)
        self._log.info("store_started", pid=self._process.pid, seconds=seconds)

    async def wait_for_failure(self, owned: Callable[[], bool]) -> None:
        """Wait until the process ended; kill it if it hangs or its files were removed.

        Returns at once if the last start failed, and when `owned` becomes false.
        """
        if self._process is None:
            return
        ended = asyncio.create_task(self._process.wait())
        try:
            reason = await self._watch_process(ended, owned)
        finally:
            ended.cancel()
        if reason:
            await self.stop(kill=True)
            self._log.error("store_killed", reason=reason)
        elif self._process.returncode is not None:
            code = self._process.returncode  # negative: the number of a signal
            self._process = None
            self._log.error("store_exited", exit_code=code)

    async def _watch_process(self, ended: "asyncio.Task[int]", owned: Callable[[], bool]) -> str:
        """Why the store must be killed; empty: it ended, or the folder is not owned any longer."""
        checks = unanswered = 0
        while owned() and not (await asyncio.wait([ended], timeout=self._watch.check_interval))[0]:
            for path, identity in self._files.items():
                if file_identity(path) != identity:
                    return f"{path} was removed"
            checks += 1
            if unanswered or checks % self._watch.checks_per_ping == 0:
                # Any reply counts. PINGs are counted, not timed: time also passes while this
                # process is stopped.
                replied = await send_command(self._socket.path, b"PING")
                unanswered = 0 if replied else unanswered + 1
            if unanswered >= self._watch.max_unanswered_pings:
                return f"no reply to {unanswered} PINGs"
        return ""

    async def stop(self, *, kill: bool = False) -> bool:
        """Stop the process; its data is then on disk. Returns whether there was a process.

        `kill`: by SIGKILL. With `fsync` always, everything that it confirmed is on disk.
        """
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.kill() if kill else process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT)
        except TimeoutError:
            process.kill()
            await process.wait()
        return True

    async def _stop_orphan(self, lock: FileLock) -> None:
        # It is never reused: a store that is about to end would look alive.
        if lock.acquire():
            return
        for _ in range(MAX_SHUTDOWNS):
            await send_command(self._socket.path, b"SHUTDOWN")
            if await lock.acquire_when_free(timeout=COMMAND_TIMEOUT):
                self._log.warning("orphaned_store_stopped")
                return
        raise StoreStartFailed(ORPHAN_ERROR.format(folder=self._folder))

    async def _stop_unlocked_orphan(self) -> None:
        """Stop a store whose lock file was removed: only its socket shows that it runs."""
        for sent in range(MAX_SHUTDOWNS):
            if not await send_command(self._socket.path, b"PING"):
                if sent:
                    self._log.warning("orphaned_store_stopped")
                return
            await send_command(self._socket.path, b"SHUTDOWN")
        raise StoreStartFailed(ORPHAN_ERROR.format(folder=self._folder))

    def _rotate_log(self) -> None:
        if _size(self._log_file) > MAX_LOG_BYTES:
            self._log_file.rename(self._log_file.with_suffix(".log.1"))

    async def _wait_until_ready(self, process: asyncio.subprocess.Process, log_offset: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        # A store that still loads its data replies -LOADING.
        while await send_command(self._socket.path, b"PING") != PONG:
            if process.returncode is not None:
                raise StoreStartFailed(
                    f"The store ended at its start:\n{self._log_end(log_offset)}"
                )
            if time.monotonic() > deadline:
                raise StoreStartFailed(f"The store does not reply:\n{self._log_end(log_offset)}")
            await asyncio.sleep(READY_POLL_INTERVAL)

    def _log_end(self, offset: int) -> str:
        """The last lines that this start wrote."""
        with self._log_file.open(errors="replace") as log:
            log.seek(offset)
            return "\n".join(log.read().splitlines()[-LOG_LINES_SHOWN:])


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def send_command(socket: Path, command: bytes) -> bytes:
    """Send one inline command → the first line of the reply; empty: no reply in time."""
    # A separate task: the tracer of Python 3.11 stops in a function that awaits a failing call.
    # Not wait_for: in Python 3.11 it can swallow a cancel that comes together with the timeout.
    sending = asyncio.create_task(_first_line(socket, command))
    try:
        await asyncio.wait([sending], timeout=COMMAND_TIMEOUT)
        return sending.result() if sending.done() else b""
    finally:
        sending.cancel()


async def _first_line(socket: Path, command: bytes) -> bytes:
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(command + b"\r\n")
            return await reader.readline()
        finally:
            writer.close()
    except OSError:
        return b""
