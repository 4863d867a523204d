"""Renewing, giving up, reaping and purging, one step at a time."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.slot_shares import Shares
from scheduler_api.delivery.upkeep import housekeeping
from scheduler_api.delivery.upkeep.housekeeping import StoreHealth
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.queue import CLAIM_BATCH, Claimed
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.store_clock import Clock
from tests.support.waiting import wait_until

LEASE = 15.0  # seconds


@asynccontextmanager
async def running(task: "asyncio.Task[None]") -> AsyncIterator[None]:
    """Until the block ends."""
    yield
    await housekeeping.end([task])


def working() -> "asyncio.Task[None]":
    """A task that goes on until it is cancelled."""

    async def work() -> None:
        await asyncio.Event().wait()

    return asyncio.create_task(work())


async def claim(store: Store, message_id: str) -> Claimed:
    """A message of that id, leased."""
    await store.messages.create(message_id, accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    return claimed


def test_a_connection_is_steady_since_it_was_found() -> None:
    connection = StoreHealth()
    assert connection.steady_for() == 0
    connection.found()
    since = connection.since
    connection.found()
    assert connection.since == since
    assert connection.steady_for() >= 0


def test_an_answer_after_a_long_silence_begins_anew() -> None:
    steady, silent = StoreHealth(silence=LEASE), StoreHealth(silence=0)
    for connection in (steady, silent):
        connection.found()
    since = steady.since
    while time.monotonic() == since:
        pass  # a clock's tick
    for connection in (steady, silent):
        connection.found()
    assert steady.since == since
    assert silent.since is not None
    assert since is not None
    assert silent.since > since


def test_each_failure_in_a_row_waits_longer_up_to_a_second() -> None:
    connection = StoreHealth()
    connection.found()
    waits = [connection.lost(StoreUnavailable()) for _ in range(12)]
    assert connection.since is None
    assert waits[0] <= 0.1
    assert 0.5 <= waits[-1] <= 1


async def test_nobody_reaps_within_a_lease_after_an_outage(store: Store, clock: Clock) -> None:
    await claim(store, "a")
    await clock.advance(60_000)
    connection = StoreHealth()
    connection.found()
    wait = await housekeeping.reap(store.queues[0], connection, LEASE)
    assert wait is not None
    assert 0 < wait <= LEASE
    assert (await store.messages.get("a")).state == "delivering"
    await store.queues[0].claim(1)  # finds nothing; whoever reaps has just asked
    assert await housekeeping.reap(store.queues[0], connection, 0) is None
    assert (await store.messages.get("a")).state == "scheduled"


async def test_nothing_to_reap_is_no_news(store: Store) -> None:
    connection = StoreHealth()
    connection.found()
    assert await housekeeping.reap(store.queues[0], connection, 0) is None


async def test_only_leases_near_their_end_are_renewed(
    store: Store, clock: Clock, redis: Redis
) -> None:
    leases = Leases(LEASE, Shares(8))
    old, young = await claim(store, "old"), await claim(store, "young")
    forever = [working() for _ in range(2)]
    now = time.monotonic()
    leases.hold(Lease(store.queues[0], old, now + LEASE / 2), forever[0])
    leases.hold(Lease(store.queues[0], young, now + LEASE), forever[1])
    await clock.advance(5_000)
    await leases.renew(LEASE * 2 / 3)
    ends = [await redis.zscore(f"{store.keys[0].base}leases", name) for name in ("young", "old")]
    assert ends[0] is not None
    assert ends[1] == ends[0] + 5_000
    await housekeeping.end(forever)
    assert len(leases) == 0


async def test_more_leases_than_fit_a_call_are_renewed_in_several(store: Store) -> None:
    leases = Leases(LEASE, Shares(8))
    tasks = []
    for n in range(CLAIM_BATCH + 1):
        await store.messages.create(f"m{n}", accepted(webhookUrl=f"http://127.0.0.1:2/{n}"))
    claimed = (await store.queues[0].claim(CLAIM_BATCH)).messages
    assert len(claimed) == CONCURRENCY
    for one in claimed * (CLAIM_BATCH // len(claimed) + 1):
        tasks.append(working())
        leases.hold(Lease(store.queues[0], one, 0), tasks[-1])
    await leases.renew(LEASE)
    assert not any(task.cancelling() for task in tasks)
    await housekeeping.end(tasks)


async def test_a_partition_that_is_away_keeps_no_other_from_renewing(
    store: Store, clock: Clock, redis: Redis
) -> None:
    leases, forever = Leases(LEASE, Shares(8)), [working() for _ in range(2)]
    claimed = await claim(store, "a")
    with socket.socket() as closed:  # bound, never listening
        closed.bind(("127.0.0.1", 0))
        away = connect(f"redis://127.0.0.1:{closed.getsockname()[1]}")
        leases.hold(Lease(Store(away).queues[0], claimed, 0), forever[0])
        leases.hold(Lease(store.queues[0], claimed, 0), forever[1])
        before = await redis.zscore(f"{store.keys[0].base}leases", "a")
        await clock.advance(5_000)
        with pytest.raises(StoreUnavailable):
            await leases.renew(LEASE)
        await close(away)
    assert before is not None
    assert await redis.zscore(f"{store.keys[0].base}leases", "a") == before + 5_000
    assert not any(task.cancelling() for task in forever)
    await housekeeping.end(forever)


async def test_a_request_that_outlives_its_lease_is_given_up(store: Store) -> None:
    leases = Leases(LEASE, Shares(8))
    claimed = await claim(store, "a")
    task = working()
    leases.hold(Lease(store.queues[0], claimed, time.monotonic() + LEASE), task)
    leases.give_up_ended()
    assert not task.cancelling()
    ended = working()
    leases.hold(Lease(store.queues[0], claimed, time.monotonic()), ended)
    async with running(asyncio.create_task(housekeeping.give_up(leases, 0.001))):
        await wait_until("the request given up", ended.done)
    assert ended.cancelled()
    await housekeeping.end([task])


async def test_an_outcome_to_be_settled_outlives_its_lease(store: Store) -> None:
    leases = Leases(LEASE, Shares(8))
    settling = working()
    lease = Lease(store.queues[0], await claim(store, "a"), time.monotonic())
    leases.hold(lease, settling)
    leases.sent(lease)
    leases.give_up_ended()
    assert not settling.cancelling()
    await housekeeping.end([settling])


async def test_an_outcome_to_be_settled_outlives_a_renewal_that_is_refused(store: Store) -> None:
    leases = Leases(LEASE, Shares(8))
    settling, sending = working(), working()
    claimed = await claim(store, "a")
    lease = Lease(store.queues[0], claimed, time.monotonic())
    leases.hold(lease, settling)
    leases.sent(lease)
    leases.hold(Lease(store.queues[0], claimed, time.monotonic()), sending)
    await store.queues[0].release([claimed])
    await leases.renew(LEASE)
    assert (settling.cancelling(), sending.cancelling()) == (0, 1)
    await housekeeping.end([settling, sending])


async def test_purge_goes_on_until_nothing_is_past_its_retention(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(CLAIM_BATCH + 1):
        await redis.hset(f"{store.keys[0].base}payloads", f"m{n}", "x")
        await redis.zadd(f"{store.keys[0].base}delivered", {f"m{n}": 1})
    monkeypatch.setattr(housekeeping, "PURGE_EVERY", 0.001)

    async def none_is_left() -> bool:
        return not await redis.zcard(f"{store.keys[0].base}delivered")

    async with running(asyncio.create_task(housekeeping.purge(store.queues[0]))):
        await wait_until("an empty shelf", none_is_left)


async def test_the_sweep_tells_of_what_was_stranded(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SWEEP_EVERY", 0.001)
    for number in range(CONCURRENCY + 2):
        await store.messages.create(f"m{number}", accepted())
    (first, *_) = (await store.queues[0].claim(CLAIM_BATCH)).messages
    await store.queues[0].settle(outcome(first))  # hands its slot to one whose record is then lost
    ids = await redis.zrange(f"{store.keys[0].base}due", 0, -1)
    await redis.hdel(f"{store.keys[0].base}payloads", *ids)
    await store.queues[0].claim(CLAIM_BATCH)

    with capture_logs() as logs:
        async with running(asyncio.create_task(housekeeping.sweep(store.queues[0]))):
            await wait_until("it is told", lambda: bool(logs))
    assert [(one["event"], one["unparked"]) for one in logs] == [("messages_unparked", 1)]
    assert len((await store.queues[0].claim(CLAIM_BATCH)).messages) == 1


async def test_housekeeping_survives_errors_of_the_store_and_our_own() -> None:
    errors = [StoreUnavailable(), RuntimeError("a mistake")]
    done = asyncio.Event()

    async def once() -> None:
        if errors:
            raise errors.pop()
        done.set()

    async with running(asyncio.create_task(housekeeping.repeat(once, 0.001))):
        async with asyncio.timeout(5):
            await done.wait()


async def test_what_the_store_was_away_for_is_tried_again_sooner() -> None:
    errors = [StoreUnavailable(), StoreUnavailable()]
    done = asyncio.Event()

    async def once() -> None:
        if errors:
            raise errors.pop()
        done.set()

    repeating = housekeeping.repeat(once, 3600, first=0, again=0.001)
    async with running(asyncio.create_task(repeating)):
        async with asyncio.timeout(5):
            await done.wait()
