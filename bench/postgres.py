"""Runs a PostgreSQL server, as installed by Debian's packages, on a new cluster."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.processes import end, environment, family_cpu_seconds
from bench.server import LOG_TAIL, LOOK_EVERY, START_LIMIT

DEBIAN: Final = Path("/usr/lib/postgresql")  # VERSION/bin of each installed version
SUPERUSER: Final = "postgres"  # in the cluster, and of the machine if we are root
SETTINGS: Final = {
    "listen_addresses": "",  # only the socket in its own folder, which others cannot enter
    "max_connections": "300",
    # A commit does not wait for the disk, which has it within three times wal_writer_delay, 0.2 s.
    "synchronous_commit": "off",
    # No checkpoint disturbs a run, as no rewrite of the log disturbs the other stores.
    "checkpoint_timeout": "1h",
    "max_wal_size": "8GB",
}


class Postgres(msgspec.Struct, frozen=True):
    """A running server."""

    address: str
    pid: int

    def cpu(self) -> float:
        """CPU seconds so far, of all its processes."""
        return family_cpu_seconds(self.pid)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Run a new server. Raises: RuntimeError."""
    programs = _programs()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        account = _account(folder)
        initdb = [f"{programs}/initdb", "--pgdata", "data", "--auth", "trust", "--no-sync"]
        _run([*initdb, "--username", SUPERUSER, "--encoding", "UTF8", "--locale", "C"], **account)
        command = [f"{programs}/postgres", "-D", "data", "-k", name]
        command += [part for it in SETTINGS.items() for part in ("-c", "=".join(it))]
        with (folder / "log").open("wb") as log:
            process: subprocess.Popen[bytes] = subprocess.Popen(
                command, stdout=log, stderr=log, **account
            )
        try:
            _wait_until_ready(process, [f"{programs}/pg_isready", "--host", name], folder / "log")
            # The folder of the socket takes the place of the host, percent-encoded.
            address = f"postgres://{SUPERUSER}@{name.replace('/', '%2F')}/postgres"
            yield Postgres(address, process.pid)
        finally:
            process.send_signal(signal.SIGINT)  # without waiting for clients
            end(process)


def _programs() -> Path:
    """The programs of the newest version. Raises: RuntimeError."""
    found = [path for path in DEBIAN.glob("*/bin") if (path / "postgres").exists()]
    if not found:
        raise RuntimeError("PostgreSQL is not installed: bench/peers/setup graphile")
    return max(found, key=lambda path: float(path.parent.name))


def _account(folder: Path) -> dict[str, Any]:
    """What a process gets that works in `folder`; PostgreSQL refuses to run as root."""
    given: dict[str, Any] = {"cwd": folder, "env": environment({})}
    if os.geteuid() != 0:
        return given
    shutil.chown(folder, SUPERUSER, SUPERUSER)
    return given | {"user": SUPERUSER, "group": SUPERUSER, "extra_groups": []}


def _run(command: list[str], **given: Any) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **given)
    if done.returncode:
        raise RuntimeError(f"{command!r} failed:\n{done.stderr[-LOG_TAIL:]}")


def _wait_until_ready(process: subprocess.Popen[bytes], probe: list[str], log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT
    while subprocess.run(probe, stdout=subprocess.DEVNULL, check=False).returncode:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()[-LOG_TAIL:]}")
        time.sleep(LOOK_EVERY)
