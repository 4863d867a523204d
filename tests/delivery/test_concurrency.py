"""Requests open to one destination: never more than its limit, and as many while messages wait."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from redis.asyncio import Redis

from scheduler_api.delivery.timing import MAX_QUEUED
from scheduler_api.domain.destination import Limits
from scheduler_api.store.queue import Queue
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.delivery.conftest import Start
from tests.support.factories import accepted
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until

CONCURRENCY = 8 * PARTITIONS  # of the destination
SLOTS = 4 * CONCURRENCY
MESSAGES = 600


class Counting:
    """Answers after a moment; counts the requests that are open at once."""

    def __init__(self, receiver: Receiver, seconds: float = 0.02) -> None:
        self.open = self.most = 0
        self._seconds = seconds
        receiver.answer = self.answer

    async def answer(self, _: web.Request) -> web.Response:
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(self._seconds)
        self.open -= 1
        return web.Response()


def destination(receiver: Receiver) -> str:
    return receiver.url.split("/")[2]


async def create(store: Store, receiver: Receiver, count: int = MESSAGES) -> None:
    await store.destinations.set_limit(destination(receiver), Limits(concurrency=CONCURRENCY))
    new = accepted(webhookUrl=receiver.url, delay="300ms")
    await asyncio.gather(*(store.messages.create(f"m{n}", new) for n in range(count)))


async def delivered(store: Store, receiver: Receiver, count: int = MESSAGES) -> None:
    """Wait for all; each came once."""
    await wait_until("all requests", lambda: len(receiver.requests) >= count, 30)

    async def nothing_pending() -> bool:
        return await store.messages.count() == 0

    await wait_until("nothing pending", nothing_pending)
    assert len(receiver.requests) == len(set(receiver.ids())) == count


@pytest.mark.parametrize("processes", [1, 2])
async def test_promise_the_limit_of_a_destination_is_exact(
    processes: int, start: Start, live_store: Store, receiver: Receiver, redis: Redis, prefix: str
) -> None:
    counting = Counting(receiver)
    await create(live_store, receiver)
    for _ in range(processes):
        store = Store(redis, prefix=prefix, partitions=PARTITIONS)
        await start(store, slots=SLOTS)
    await delivered(live_store, receiver)
    assert CONCURRENCY // 4 < counting.most <= CONCURRENCY
    assert (await live_store.destinations.get(destination(receiver))).in_flight == 0


@pytest.mark.parametrize("limit", [1, 3])
async def test_promise_a_lowered_limit_is_exact_once_open_requests_have_ended(
    limit: int, start: Start, live_store: Store, receiver: Receiver
) -> None:
    counting = Counting(receiver)
    await create(live_store, receiver)
    await start(slots=SLOTS)
    await wait_until("requests", lambda: len(receiver.requests) > 100)
    name, limits = destination(receiver), Limits(concurrency=limit * PARTITIONS)
    await live_store.destinations.set_limit(name, limits)

    async def lowered() -> bool:
        return (await live_store.destinations.get(name)).in_flight <= limit * PARTITIONS

    await wait_until("no more permits than that", lowered, MAX_QUEUED + 2)
    counting.most = counting.open
    await wait_until("some more", lambda: len(receiver.requests) >= 300, 60)
    assert counting.most <= limit * PARTITIONS
    await live_store.destinations.set_limit(name, Limits(concurrency=CONCURRENCY))
    await delivered(live_store, receiver)


async def test_promise_a_pause_stops_queued_messages_soon(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    counting = Counting(receiver)
    await create(live_store, receiver)
    await start(slots=SLOTS)
    await wait_until("requests", lambda: len(receiver.requests) > 100)
    await live_store.destinations.set_limit(destination(receiver), Limits(paused=True))
    await asyncio.sleep(MAX_QUEUED)
    await wait_until("no open request", lambda: counting.open == 0)
    sent = len(receiver.requests)
    await asyncio.sleep(0.3)
    assert len(receiver.requests) == sent < MESSAGES
    await live_store.destinations.set_limit(destination(receiver), Limits())
    await delivered(live_store, receiver)


async def test_queued_messages_of_a_host_that_hangs_are_given_back(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    Counting(receiver)
    await create(live_store, receiver)
    dispatcher = await start(slots=SLOTS)
    await wait_until("some queued", lambda: bool(dispatcher._leases.queued), 20)
    receiver.hold.clear()
    await wait_until("none queued", lambda: not dispatcher._leases.queued, MAX_QUEUED + 2)
    found = await live_store.destinations.get(destination(receiver))
    assert found.in_flight <= CONCURRENCY
    receiver.hold.set()
    await delivered(live_store, receiver)


def count_calls(store: Store, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many claims and releases all processes of the store make from now on."""
    calls = Counter[str]()

    def counted(queue: Queue, name: str) -> Callable[..., Awaitable[Any]]:
        call = getattr(queue, name)

        async def count(*args: Any) -> Any:
            calls[name] += 1
            return await call(*args)

        return count

    for queue in store.queues:
        for name in ("claim", "release"):
            monkeypatch.setattr(queue, name, counted(queue, name))
    return calls


async def test_dropped_connections_do_not_end_the_wait_for_permits(
    start: Start, live_store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = Counting(receiver)

    async def answer(request: web.Request) -> web.Response:
        drops = len(receiver.requests) % 5 == 0
        response = await counting.answer(request)
        if drops and request.transport:
            request.transport.abort()
        return response

    receiver.answer = answer
    await create(live_store, receiver)
    calls = count_calls(live_store, monkeypatch)
    await start(slots=SLOTS)
    await wait_until("all requests", lambda: len(set(receiver.ids())) == MESSAGES, 30)
    assert counting.most <= CONCURRENCY
    assert calls["claim"] < MESSAGES
    assert calls["release"] <= 5, "there were 20 to 40 when each dropped connection ended the wait"


async def test_drain_gives_queued_messages_back_and_sends_none_of_them(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    Counting(receiver)
    await create(live_store, receiver)
    dispatcher = await start(slots=SLOTS)
    await wait_until("some queued", lambda: bool(dispatcher._leases.queued), 10)
    await dispatcher.drain(timedelta(seconds=5))
    counts = await live_store.messages.count()
    sent = len(receiver.requests)
    assert counts == MESSAGES - sent
    await asyncio.sleep(0.1)
    assert len(receiver.requests) == sent
    await start(slots=SLOTS)
    await delivered(live_store, receiver)
