"""Runs an external store: the Valkey of the wheel, or another installed server."""

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from redis import Redis
from redis.exceptions import RedisError

from bench.processes import cpu_seconds, end
from bench.server import HOST, LOOK_EVERY, START_LIMIT, free_port
from scheduler_api.store.embedded.launch import find_binary


class ExternalStore(msgspec.Struct, frozen=True):
    """A running store."""

    address: str
    pid: int

    def info(self) -> dict[str, Any]:
        """Its INFO, which costs it one command."""
        with Redis.from_url(self.address) as redis:
            found: Any = redis.info()
        return dict(found)

    def cpu(self) -> float:
        """CPU seconds so far."""
        return cpu_seconds(self.pid)


@contextmanager
def external_store(binary: Path | None = None, *, fsync: str = "always") -> Iterator[ExternalStore]:
    """Run a new store on loopback. Raises: RuntimeError.

    Its log is never rewritten: a fork in the middle of a run would disturb it.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        settings = {
            "bind": HOST,
            "port": str(port),
            "dir": folder,
            "logfile": f"{folder}/log",
            "save": "",
            "appendonly": "yes",
            "appendfsync": fsync,
            "auto-aof-rewrite-percentage": "0",
        }
        command = [str(binary or find_binary())]
        command += [part for name, value in settings.items() for part in (f"--{name}", value)]
        process = subprocess.Popen(command)
        try:
            store = ExternalStore(f"redis://{HOST}:{port}", process.pid)
            _wait_until_ready(store, process)
            yield store
        finally:
            process.terminate()
            end(process)


def _wait_until_ready(store: ExternalStore, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_LIMIT
    while not _answers(store):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(LOOK_EVERY)


def _answers(store: ExternalStore) -> bool:
    try:
        return bool(store.info())
    except RedisError:
        return False
