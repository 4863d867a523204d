"""One destination never delays another, whether it hangs, is paused or is gone."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.delivery.conftest import Start
from tests.support.factories import accepted
from tests.support.receiver import Receiver, receiving
from tests.support.silent_hosts import answer_names, silent_port
from tests.support.waiting import wait_until

CONCURRENCY = 64 * PARTITIONS  # of a destination, as in live_store
SLOTS = CONCURRENCY + 36
SHARE = (SLOTS - 1) // 3 + 1  # of the slots that one slow destination may have
LATE = 2_000  # ms: far less than a hanging request takes, more than a busy machine needs
DOWN = 50 * PARTITIONS  # messages to a host that is unreachable
TRIED = 8 * PARTITIONS  # attempts at most, until each partition regards it as unreachable


@pytest.fixture
async def other() -> AsyncIterator[Receiver]:
    """A second destination."""
    async with receiving() as one:
        yield one


async def create(store: Store, count: int, url: str, name: str, **fields: Any) -> None:
    new = accepted(webhookUrl=url, **fields)
    await asyncio.gather(*(store.messages.create(f"{name}-{n}", new) for n in range(count)))


def destination(receiver: Receiver) -> str:
    return receiver.url.split("/")[2]


async def waiting(store: Store, receiver: Receiver) -> int:
    return (await store.destinations.get(destination(receiver))).waiting


async def test_dispatcher_does_not_delay_other_hosts_if_one_hangs(
    start: Start, live_store: Store, receiver: Receiver, other: Receiver
) -> None:
    receiver.hold.clear()
    await create(live_store, 2_000, receiver.url, "hangs", delay="200ms")
    await create(live_store, 300, other.url, "fast", delay="200ms")
    await start(slots=SLOTS)
    await wait_until("all fast messages", lambda: len(other.requests) == 300, 30)
    await wait_until("its share of the slots", lambda: len(receiver.requests) == SHARE)

    async def all_others_wait() -> bool:  # one claim parks some hundred
        found = await live_store.destinations.get(destination(receiver))
        return (found.in_flight, found.waiting) == (SHARE, 2_000 - SHARE)

    await wait_until("all others parked", all_others_wait)
    receiver.hold.set()
    await wait_until("all messages that hung", lambda: len(receiver.requests) == 2_000, 60)
    await wait_until("nothing pending", lambda: _nothing_pending(live_store))


async def lateness(store: Store, name: str, count: int) -> list[int]:
    """The lateness of each attempt, ms."""
    messages = [await store.messages.get(f"{name}-{n}") for n in range(count)]
    return [attempt.lateness_ms for message in messages for attempt in message.attempts]


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], str]]:
    """Gives the URL of one of many hosts that hang."""
    answer_names(monkeypatch, lambda _: ["127.0.0.1"])
    with silent_port() as port:
        yield lambda number: f"http://hanging{number}.example:{port}/"


async def hang(
    redis: Redis, store: Store, url: Callable[[int], str], hosts: int, each: int
) -> None:
    """Create messages to so many hosts; wait until all are sent or parked."""
    for number in range(hosts):
        await create(store, each, url(number), f"hangs{number}")

    async def none_is_due() -> bool:
        counts = [await redis.zcard(f"{keys.base}due") for keys in store.keys]
        return not any(counts)

    await wait_until("all of them sent or parked", none_is_due, 60)


@pytest.mark.parametrize(
    ("hosts", "each", "slots"),
    [(1, 80, 64), (4, 80, 256), (16, 20, 256), (100, 4, 256), (300, 2, 256), (3, 5, 8)],
)
async def test_promise_a_slow_destination_delays_no_other(
    start: Start,
    live_store: Store,
    receiver: Receiver,
    redis: Redis,
    hanging: Callable[[int], str],
    hosts: int,
    each: int,
    slots: int,
) -> None:
    await start(slots=slots)
    await create(live_store, 1, receiver.url, "known")
    await wait_until("a first request", lambda: len(receiver.requests) == 1)
    await hang(redis, live_store, hanging, hosts, each)
    await create(live_store, 40, receiver.url, "fast")
    await wait_until("all fast messages", lambda: len(receiver.requests) == 41)
    await wait_until("their results", lambda: settled(live_store, "fast", 40))
    assert max(await lateness(live_store, "fast", 40)) < LATE


async def settled(store: Store, name: str, count: int) -> bool:
    found = [await store.messages.get(f"{name}-{n}") for n in range(count)]
    return all(message.state == "delivered" for message in found)


@pytest.mark.parametrize(("hosts", "each"), [(4, 80), (16, 20), (100, 4)])
async def test_dispatcher_keeps_slots_for_a_new_host_while_others_hang(
    start: Start,
    live_store: Store,
    receiver: Receiver,
    redis: Redis,
    hanging: Callable[[int], str],
    hosts: int,
    each: int,
) -> None:
    await start(slots=256)
    await hang(redis, live_store, hanging, hosts, each)
    await create(live_store, 40, receiver.url, "new")
    await wait_until("all new messages", lambda: settled(live_store, "new", 40))
    assert max(await lateness(live_store, "new", 40)) < LATE


async def test_dispatcher_keeps_slots_from_quick_hosts_that_begin_to_hang(
    start: Start, live_store: Store, receiver: Receiver, other: Receiver
) -> None:
    await start(slots=64)
    await create(live_store, 10, receiver.url, "quick")
    await wait_until("quick responses", lambda: settled(live_store, "quick", 10))
    receiver.hold.clear()
    await create(live_store, 100, receiver.url, "hangs")
    await wait_until("all slots except the kept ones", lambda: len(receiver.requests) == 10 + 60)
    await create(live_store, 40, other.url, "fast")
    await wait_until("all fast messages", lambda: settled(live_store, "fast", 40))
    assert max(await lateness(live_store, "fast", 40)) < LATE
    receiver.hold.set()
    await wait_until("all messages that hung", lambda: len(receiver.requests) == 110)


async def test_dispatcher_sends_waiting_messages_when_slots_are_free_again(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.hold.clear()
    await start(slots=12)
    await create(live_store, 30, receiver.url, "slow")
    await wait_until("its share", lambda: len(receiver.requests) == 4)
    receiver.hold.set()
    await wait_until("all messages", lambda: settled(live_store, "slow", 30))
    assert len(receiver.requests) == 30


async def _nothing_pending(store: Store) -> bool:
    return await store.messages.count() == 0


async def test_dispatcher_pauses_and_resumes_a_destination_under_load(
    start: Start, live_store: Store, receiver: Receiver, other: Receiver
) -> None:
    await create(live_store, 600, receiver.url, "paused")
    await create(live_store, 600, other.url, "other")
    await start(slots=100)
    await wait_until("the load", lambda: len(receiver.requests) > 100)
    await live_store.destinations.set_limit(destination(receiver), Limits(paused=True))

    async def at_rest() -> bool:
        found = await live_store.destinations.get(destination(receiver))
        return found.in_flight == 0 and found.waiting == 600 - len(receiver.requests)

    await wait_until("the pause", at_rest)
    await wait_until("all others", lambda: len(other.requests) == 600)
    assert len(receiver.requests) < 600
    await live_store.destinations.set_limit(destination(receiver), Limits())
    await wait_until("all waiting messages", lambda: len(receiver.requests) == 600)
    await wait_until("nothing pending", lambda: _nothing_pending(live_store))
    assert len(receiver.requests) == 600


async def test_dispatcher_probes_an_unreachable_host_and_sends_all_when_it_is_back(
    start: Start, live_store: Store, other: Receiver
) -> None:
    with socket.socket() as closed:  # bound, not listening: connections are refused
        closed.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        await live_store.destinations.set_limit(f"127.0.0.1:{port}", Limits(concurrency=5))
        await create(live_store, DOWN, f"http://127.0.0.1:{port}/", "down")
        await create(live_store, 50, other.url, "up")
        await start(slots=SLOTS)
        await wait_until("all to the other host", lambda: len(other.requests) == 50)

        async def broken() -> bool:
            found = await live_store.destinations.get(f"127.0.0.1:{port}")
            return found.hold is not None and found.hold.reason == "unreachable"

        await wait_until("an unreachable destination", broken)
        made = [(await live_store.messages.get(f"down-{n}")).attempts_made for n in range(DOWN)]
        assert sum(made) <= TRIED
        assert made.count(0) >= DOWN - TRIED
    async with receiving(port) as back:
        untried = made.count(0)
        await wait_until("all untried messages", lambda: len(back.requests) >= untried, 30)
