"""The server under test: a new one, or one that already runs."""

import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.processes import cpu_seconds, end, environment, family

HOST = "127.0.0.1"
TOKEN = "bench-token"  # noqa: S105  of a server that lives for seconds, on loopback
START_LIMIT = 30.0  # seconds
STORES = ("valkey-server", "redis-server")  # names of a store's process
LOOK_EVERY = 0.01  # seconds between two checks whether a server is ready
LOG_TAIL = 2000  # last characters of the log, shown if a start fails


class Target(msgspec.Struct, frozen=True):
    """The server that requests go to."""

    host: str
    port: int
    token: str
    pid: int | None = None  # of the process that we started

    def cpu(self) -> tuple[float, float] | None:
        """CPU seconds so far of its processes and its store; None if we did not start it."""
        if self.pid is None:
            return None
        ours, store = 0.0, 0.0
        for pid, command in family(self.pid).items():
            if command.startswith(STORES):
                store += cpu_seconds(pid)
            else:
                ours += cpu_seconds(pid)
        return ours, store


@contextmanager
def server(url: str | None, token: str, settings: dict[str, str]) -> Iterator[Target]:
    """The running server at `url`, else a new one with these settings."""
    if url is None:
        with fresh(settings) as target:
            yield target
    else:
        parts = urlsplit(url)
        yield Target(parts.hostname or HOST, parts.port or 80, token)


@contextmanager
def fresh(settings: dict[str, str]) -> Iterator[Target]:
    """A new server with an empty store."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        serving(Path(folder), settings) as target,
    ):
        yield target


@contextmanager
def serving(folder: Path, settings: dict[str, str]) -> Iterator[Target]:
    """A server on the data in `folder` or at REDIS_URL; it may be killed meanwhile."""
    port = free_port()
    given = {  # else the defaults
        "API_HOST": HOST,
        "API_PORT": str(port),
        "API_TOKEN": TOKEN,
        "DATA_DIR": f"{folder}/data",
        "EGRESS_ALLOW": f"{HOST}/32",
    }
    command = [sys.executable, "-m", "scheduler_api", "serve"]
    with started(command, port, "/health/ready", folder, given | settings) as pid:
        yield Target(HOST, port, TOKEN, pid)


@contextmanager
def started(
    command: list[str], port: int, path: str, folder: Path, variables: dict[str, str]
) -> Iterator[int]:
    """Run a command in `folder`, and wait for its first 200 → pid. Raises: RuntimeError."""
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment(variables), stdout=output, stderr=output
        )
    try:
        _wait_until_ready(process, port, path, log)
        yield process.pid
    finally:
        process.terminate()
        end(process)


def _wait_until_ready(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not _is_ready(port, path):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-LOG_TAIL:]}")
        time.sleep(LOOK_EVERY)


def _is_ready(port: int, path: str) -> bool:
    connection = HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        return int(taken.getsockname()[1])
