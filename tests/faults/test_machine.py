"""Faults of the machine: a blocked event loop, an unread log, no descriptors, no memory."""

import asyncio
import fcntl
import os
import resource
import select
import signal
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from tests.faults.conftest import Logs, Service, events, replica
from tests.support.receiver import Receiver
from tests.support.valkey import Valkey
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, TOKEN, Server, serving

BLOCK: Final = 3.0  # seconds that the event loop is blocked
LEASE: Final = "8s"  # longer than BLOCK and a third of it together


async def test_event_loop_that_is_blocked_for_less_than_its_leases_sends_nothing_twice(
    tmp_path: Path, upstream: Valkey, receiver: Receiver
) -> None:
    """F12. With open requests, and another replica that would take over late messages."""
    receiver.hold.clear()
    (tmp_path / "other").mkdir()
    async with replica(upstream.address, tmp_path / "blocked", LEASE=LEASE) as blocked:
        ids = [f"m{number}" for number in range(20)]
        for message_id in ids:
            assert await blocked.create(id=message_id, webhookUrl=receiver.url) == 201
        await wait_until("all requests", lambda: len(receiver.requests) == len(ids))
        async with serving(tmp_path / "other", REDIS_URL=upstream.address, LEASE=LEASE) as other:
            began = time.monotonic()
            asyncio.get_running_loop().call_soon(time.sleep, BLOCK)
            await wait_until("the end of it", lambda: time.monotonic() > began + BLOCK)
            receiver.hold.set()
            for message_id in ids:
                await other.reach(message_id, "delivered")
            assert other.events("leases_reaped") == []
    assert sorted(receiver.ids()) == sorted(ids)


@pytest.fixture
def unread(tmp_path: Path) -> int:
    """The reading end of the service's log, a pipe of one page."""
    os.mkfifo(tmp_path / "stderr")
    pipe = os.open(tmp_path / "stderr", os.O_RDWR | os.O_NONBLOCK)
    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    return pipe


def is_full(pipe: int) -> bool:
    """Whether another line does not fit."""
    return not select.select([], [pipe], [], 0)[1]


async def test_log_that_nobody_reads_holds_up_neither_creates_nor_deliveries(
    tmp_path: Path, receiver: Receiver, unread: int
) -> None:
    """F53. The pipe is full, then closed."""
    async with serving(tmp_path, LOG_LEVEL="DEBUG") as server:
        for number in range(40):
            await server.create(id=f"full-{number}", webhookUrl=receiver.url)
        assert is_full(unread)
        await server.reach("full-39", "delivered")
        os.close(unread)
        for number in range(40):
            await server.create(id=f"closed-{number}", webhookUrl=receiver.url)
        await server.reach("closed-39", "delivered")
        assert await server.stop() == 0
    assert len(receiver.requests) == 80


async def open_connections(stack: AsyncExitStack, server: Server, count: int) -> None:
    """Connections of callers that send nothing, until the stack ends."""
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        stack.callback(writer.close)


async def status_of_a_create(server: Server) -> int:
    """Call on a new connection."""
    url, headers = f"{server.url}/messages", {"Authorization": f"Bearer {TOKEN}"}
    body = {"id": "to-nobody", "webhookUrl": "http://127.0.0.1:2/"}
    async with aiohttp.request("POST", url, json=body, headers=headers) as answer:
        return answer.status


async def test_open_files_are_shared_by_deliveries_and_callers_if_few(
    tmp_path: Path, receiver: Receiver
) -> None:
    """F51. Claims pause, idle callers make room for others; then everything continues."""
    async with serving(tmp_path, ("prlimit", "--nofile=64", *SERVE)) as server:
        limited = await server.event("open_files_limited")
        await server.create(id="first", webhookUrl=receiver.url)
        await server.reach("first", "delivered")  # a host that answered quickly may use every slot
        receiver.requests.clear()
        receiver.hold.clear()
        ids = [f"m{number}" for number in range(30)]
        batch = {"messages": [{"id": one, "webhookUrl": receiver.url} for one in ids]}
        assert (await server.ask("POST", "/messages/batch", batch))[0] == 200
        await wait_until("a few", lambda: len(receiver.requests) == limited["max_in_flight"])
        async with AsyncExitStack() as stack:
            await open_connections(stack, server, 16)
            assert await status_of_a_create(server) == 201
        await server.ready()
        assert len(receiver.requests) == limited["max_in_flight"]
        receiver.hold.set()
        for message_id in ids:
            await server.reach(message_id, "delivered")
        assert await server.stop() == 0
    assert sorted(receiver.ids()) == sorted(ids)


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Open all descriptors that this process may have."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    taken = []
    try:
        with suppress(OSError):
            while True:
                taken.append(os.dup(0))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_claim_without_a_free_descriptor_does_not_run_and_uses_no_attempt(
    service: Service, receiver: Receiver, logs: Logs, host: str
) -> None:
    """F51. Neither the receiver nor its name is at fault: the message is released."""
    url = receiver.url.replace("127.0.0.1", host)
    assert await service.create(id="m", webhookUrl=url, delay=0.5) == 201
    with no_descriptor_left():
        await wait_until("the shortage", lambda: len(events(logs, "sockets_exhausted")) > 0)
    await service.reach("m", "delivered")
    async with service.http.get("/messages/m") as response:
        (attempt,) = (await response.json())["attempts"]
    assert (attempt["number"], attempt["status"]) == (1, 200)
    assert events(logs, "attempt_failed") == []
    assert receiver.ids() == ["m"]


def take_memory(pid: int, left: int) -> None:
    """Limit a process to this many further bytes of address space."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + left
    resource.prlimit(pid, resource.RLIMIT_AS, (most, most))


async def create_large(server: Server, receiver: Receiver, message_id: str) -> int:
    """Create a large message → its status; 0: no valid answer."""
    body = {"id": message_id, "webhookUrl": receiver.url, "payload": "x" * 500_000}
    try:
        return (await server.ask("POST", "/messages", body))[0]
    except (aiohttp.ClientError, ValueError):
        return 0


async def test_replica_without_memory_loses_nothing(
    upstream: Valkey, receiver: Receiver, tmp_path: Path
) -> None:
    """F52. Whether it dies or is killed then: another replica sends what it answered 201."""
    async with serving(tmp_path, REDIS_URL=upstream.address, LEASE="2s") as starved:
        for number in range(10):
            await starved.create(id=f"before-{number}", webhookUrl=receiver.url, delay=1)
        take_memory(starved.process.pid, 16 << 20)
        creating = (create_large(starved, receiver, f"m{number}") for number in range(60))
        statuses = await asyncio.gather(*creating)
        assert set(statuses) - {201, 409}, "it ran out of memory"
        starved.send_signal(signal.SIGKILL)
        await starved.ended()
    async with replica(upstream.address, tmp_path / "other") as other:
        stored = [f"m{number}" for number, status in enumerate(statuses) if status == 201]
        for message_id in [f"before-{number}" for number in range(10)] + stored:
            await other.reach(message_id, "delivered")
