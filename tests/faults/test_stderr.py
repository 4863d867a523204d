"""A log that cannot be written: each kind of stderr, under load, through an outage, at SIGTERM.

The service is a real process whose stdout and stderr are that stream, full from the start. Its
store is outside, so that it can be taken away. `make test` takes a kind of each sort; `make faults`
takes them all, and a disk that is really full.
"""

import asyncio
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.support import stderr_streams
from tests.support.external_store import ExternalStore
from tests.support.receiver import Receiver
from tests.support.small_disk import small_disk
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, Server, started_into

LOAD: Final = 40  # messages before and after the outage
AHEAD: Final = 5  # messages that fall due during the outage
ROUNDS: Final = 6  # rounds of creates during the outage
APART: Final = 0.2  # seconds between two rounds; all of them are shorter than a lease
ON_TIME: Final = 2_000  # ms of lateness, on a machine that runs other tests
STOP_WITHIN: Final = 10.0  # longest time from SIGTERM to the exit, seconds

OPTIONS: Final = {"LOG_LEVEL": "DEBUG", "SHUTDOWN_GRACE": "5s"}

LIMIT: Final = 4096  # bytes, of any file of the process
LIMITED: Final = ("prlimit", f"--fsize={LIMIT}", *SERVE)
CLOSED: Final = ("sh", "-c", 'exec "$@" >&- 2>&-', "-", *SERVE)


@contextmanager
def a_file(path: Path) -> Iterator[stderr_streams.Stream]:
    """A file as stderr."""
    writing = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    reading = os.open(path, os.O_RDONLY)
    yield stderr_streams.Stream(writing, reading)
    os.close(writing)
    os.close(reading)


async def statuses(server: Server, receiver: Receiver, ids: list[str]) -> Counter[int]:
    """The statuses of creates at once."""

    async def create(message_id: str) -> int:
        body = {"id": message_id, "webhookUrl": receiver.url, "payload": "x" * 200}
        return (await server.ask("POST", "/messages", body))[0]

    return Counter(await asyncio.gather(*map(create, ids)))


async def load(server: Server, receiver: Receiver, name: str) -> list[str]:
    """Create messages, which must be accepted and arrive on time → their ids."""
    ids = [f"{name}-{number}" for number in range(LOAD)]
    for start in range(0, LOAD, 20):
        assert await statuses(server, receiver, ids[start : start + 20]) == {201: 20}
    for message_id in ids:
        await server.reach(message_id, "delivered")
    for message_id in (ids[0], ids[-1]):
        _, message, _ = await server.ask("GET", f"/messages/{message_id}")
        assert message["attempts"][0]["latenessMs"] < ON_TIME
    return ids


async def outage(server: Server, receiver: Receiver, store: ExternalStore) -> tuple[list[str], int]:
    """Stop the store while messages fall due; creates are refused meanwhile."""
    ids = [f"away-{number}" for number in range(AHEAD)]
    for message_id in ids:
        await server.create(id=message_id, webhookUrl=receiver.url, delay=1)
    await store.stop(signal.SIGKILL)
    refused = Counter[int]()
    for number in range(ROUNDS):
        refused += await statuses(server, receiver, [f"refused-{number}-{n}" for n in range(5)])
        await _passed(time.monotonic() + APART)
    assert refused == {503: ROUNDS * 5}
    await store.start()
    await server.ready()
    for message_id in ids:
        await server.reach(message_id, "delivered")
    return ids, refused.total()


async def _passed(instant: float) -> None:
    await wait_until("the next round", lambda: time.monotonic() > instant)


async def stop(server: Server, receiver: Receiver) -> list[str]:
    """SIGTERM during an open request, which ends; the process exits in time with code 0."""
    receiver.hold.clear()
    await server.create(id="open", webhookUrl=receiver.url)
    await wait_until("the request", lambda: "open" in receiver.ids())
    began = time.monotonic()
    server.send_signal(signal.SIGTERM)
    receiver.hold.set()
    assert await server.ended() == 0
    assert time.monotonic() < began + STOP_WITHIN
    return ["open"]


async def survive(server: Server, receiver: Receiver, store: ExternalStore) -> str:
    """Load, outage, load, SIGTERM → the counts."""
    await server.ready()
    ids = await load(server, receiver, "before")
    during, refused = await outage(server, receiver, store)
    ids += during + await load(server, receiver, "after") + await stop(server, receiver)
    arrived = Counter(receiver.ids())
    assert set(ids) <= set(arrived), "lost"
    again = arrived.total() - len(arrived)
    return f"{len(ids)} accepted, 0 lost, {again} sent again, {refused} refused in the outage"


@pytest.fixture
async def external_store(tmp_path: Path) -> AsyncIterator[ExternalStore]:
    """The store, outside the file limit of the service."""
    one = ExternalStore(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        await one.stop()


@pytest.fixture
def report(
    request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], None]:
    """Prints what a test counted."""

    def printed(counts: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {counts}")

    return printed


SORTS: Final = ("full device", "stream socket")  # one fails, the other blocks
OTHERS: Final = [
    kind for kind in (*stderr_streams.READABLE, *stderr_streams.DEAD) if kind not in SORTS
]


@pytest.mark.parametrize(
    "kind", [*SORTS, *(pytest.param(kind, marks=pytest.mark.machine) for kind in OTHERS)]
)
async def test_promise_at_least_once_whatever_stderr_takes(
    kind: str,
    tmp_path: Path,
    external_store: ExternalStore,
    receiver: Receiver,
    report: Callable[[str], None],
) -> None:
    with stderr_streams.opened(kind, tmp_path) as stream:
        stream.fill()
        options = external_store.environ | OPTIONS
        async with started_into(stream.descriptor, tmp_path, SERVE, options) as server:
            report(await survive(server, receiver, external_store))


@pytest.mark.machine
@pytest.mark.parametrize(
    ("command", "workers"),
    [
        pytest.param(CLOSED, "1", id="closed"),
        pytest.param(LIMITED, "1", id="file at its limit"),
        pytest.param(LIMITED, "2", id="file of two workers at its limit"),
    ],
)
async def test_stderr_that_is_closed_or_at_its_limit_harms_no_message_and_no_exit(
    command: tuple[str, ...],
    workers: str,
    tmp_path: Path,
    external_store: ExternalStore,
    receiver: Receiver,
    report: Callable[[str], None],
) -> None:
    with a_file(tmp_path / "log") as stream:
        options = external_store.environ | OPTIONS | {"WORKERS": workers}
        async with started_into(stream.descriptor, tmp_path, command, options) as server:
            report(await survive(server, receiver, external_store))
        assert len(stream.read()) <= LIMIT


@pytest.mark.machine
async def test_log_on_a_full_disk_continues_with_whole_lines_when_there_is_space(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver, report: Callable[[str], None]
) -> None:
    with small_disk(tmp_path / "disk", "64k") as disk, a_file(tmp_path / "disk" / "log") as stream:
        disk.fill()
        options = external_store.environ | OPTIONS
        async with started_into(stream.descriptor, tmp_path, SERVE, options) as server:
            await server.ready()
            await load(server, receiver, "full")
            disk.free()
            await server.create(id="room", webhookUrl=receiver.url)
            await server.reach("room", "delivered")
            lines = stream.read().splitlines()
            disk.fill()
            report(await survive(server, receiver, external_store))
    events = [json.loads(line)["event"] for line in lines]
    assert "log_lines_dropped" in events
    assert "message_delivered" in events
