"""The processes of one service: the parent, its workers, and the embedded store."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import NamedTuple

from tests.support.waiting import wait_until
from tests.system.processes import Server, has_store

PATIENCE = 20.0  # seconds, on a busy machine


class Process(NamedTuple):
    """A running process; a zombie is none."""

    pid: int
    parent: int
    command: str


async def group(server: Server) -> list[Process]:
    """The process group of the server: parent and workers, but not the store."""
    columns = ("pid", "ppid", "pgid", "stat", "args")
    command = ("ps", "-A", "-ww", *(word for one in columns for word in ("-o", f"{one}=")))
    ps = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await ps.communicate()
    rows = (line.split(None, 4) for line in output.decode(errors="replace").splitlines())
    return [
        Process(int(pid), int(parent), args)
        for pid, parent, pgid, state, args in rows
        if int(pgid) == server.process.pid and not state.startswith("Z")
    ]


async def workers(server: Server) -> list[int]:
    """The process ids of the workers."""
    return sorted(one.pid for one in await group(server) if "spawn_main" in one.command)


async def until_workers(server: Server, count: int, but: tuple[int, ...] = ()) -> list[int]:
    """Wait for so many workers that are not in `but`."""
    found: list[int] = []

    async def there() -> bool:
        found[:] = await workers(server)
        return len(found) == count and not set(found) & set(but)

    await wait_until(f"{count} workers", there, PATIENCE)
    return found


async def until_processes_are_gone(server: Server) -> None:
    """Wait until no parent or worker runs; another start may use the store."""

    async def gone() -> bool:
        return not await group(server)

    await wait_until("no orphans", gone, PATIENCE)


async def until_nothing_is_left(server: Server) -> None:
    """Wait until no process of the service runs, including the store."""
    await until_processes_are_gone(server)
    await wait_until("no store", lambda: not has_store(server.folder), PATIENCE)


def kill(*pids: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to processes of this test; one may have ended already."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def store_pid(server: Server) -> int:
    """The process id of the embedded store, from the log of its newest start."""
    return int(server.events("store_started")[-1]["pid"])
