"""Reap makes the messages of ended leases due again; after too many crashes they have failed."""

import asyncio
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import MessageNotFound
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.queue import CLAIM_BATCH, MAX_CRASHES
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.store.conftest import Replica
from tests.support.factories import accepted
from tests.support.message_states import attempt, bring, everything, fill, outcome
from tests.support.store_clock import Clock

LEASE = 15_000  # ms, of `store`


async def crash(store: Store, clock: Clock) -> tuple[int, list[str]]:
    """All that is due is claimed by a process that dies; reaped when the leases are over."""
    await store.queues[0].claim(100)
    await clock.advance(LEASE)
    return await store.queues[0].reap()


async def test_reap_takes_back_a_lease_at_its_end_and_not_before(
    store: Store, redis: Redis, clock: Clock
) -> None:
    await bring(store, "delivering")
    await clock.advance(LEASE - 1)
    before = await everything(redis, store.keys[0])
    assert await store.queues[0].reap() == (0, [])
    assert await everything(redis, store.keys[0]) == before
    await clock.advance(1)
    assert await store.queues[0].reap() == (1, [])
    assert (await store.messages.get("a")).state == "scheduled"


async def test_reap_does_nothing_if_an_outage_delayed_the_call(store: Store, clock: Clock) -> None:
    await bring(store, "delivering")
    await clock.advance(LEASE)
    await store.queues[0].claim(1)  # finds nothing, but returns the time
    await clock.advance(1_001)
    assert await store.queues[0].reap(within=timedelta(seconds=1)) == (0, [])
    await store.queues[0].claim(1)
    await clock.advance(1_000)
    assert await store.queues[0].reap(within=timedelta(seconds=1)) == (1, [])


async def test_reap_counts_a_crash_and_no_attempt(store: Store, clock: Clock) -> None:
    await bring(store, "scheduled")
    await crash(store, clock)
    found = await store.messages.get("a")
    assert (found.crashes, found.attempts_made, found.attempts) == (1, 0, [])
    assert found.next_attempt_at == from_ms(NOW)  # as it was
    claimed = (await store.queues[0].claim(1)).messages[0]
    assert (claimed.crashes, claimed.attempts) == (1, 0)


async def test_reap_keeps_the_attempts_before_a_crash(store: Store, clock: Clock) -> None:
    await bring(store, "retrying")
    await clock.advance(60_000)
    assert await crash(store, clock) == (1, [])
    found = await store.messages.get("a")
    assert (found.state, found.crashes, found.attempts) == ("retrying", 1, [attempt()])


async def test_settle_keeps_the_crashes_before_an_attempt(store: Store, clock: Clock) -> None:
    await bring(store, "scheduled")
    await crash(store, clock)
    await crash(store, clock)
    claim = await store.queues[0].claim(1)
    await store.queues[0].settle(outcome(claim.messages[0], "retry"))
    found = await store.messages.get("a")
    assert (found.crashes, found.attempts_made) == (2, 1)


async def test_reap_fails_a_message_after_too_many_crashes(store: Store, clock: Clock) -> None:
    await bring(store, "retrying")
    await clock.advance(60_000)
    for _ in range(MAX_CRASHES - 1):
        assert await crash(store, clock) == (1, [])
    assert await crash(store, clock) == (0, ["a"])
    found = await store.messages.get("a")
    assert (found.state, found.crashes, found.attempts) == ("failed", MAX_CRASHES, [attempt()])


async def test_reap_forgets_a_failed_message_without_retention(
    store: Store, clock: Clock, replica: Replica
) -> None:
    forgetful = replica(keep_failed=timedelta(0))
    await bring(store, "scheduled")
    for _ in range(MAX_CRASHES - 1):
        await crash(forgetful, clock)
    assert await crash(forgetful, clock) == (0, ["a"])
    with pytest.raises(MessageNotFound):
        await store.messages.get("a")


async def test_reap_unparks_a_message_for_each_freed_slot(store: Store, clock: Clock) -> None:
    await fill(store)
    for number in range(CONCURRENCY + 1):
        await store.messages.create(f"parked-{number}", accepted())
    assert (await store.queues[0].claim(100)).messages == []
    await clock.advance(LEASE)
    await store.queues[0].reap()
    assert len((await store.queues[0].claim(100)).messages) == CONCURRENCY


async def test_reap_takes_back_at_most_a_hundred(store: Store, clock: Clock) -> None:
    urls = [f"http://127.0.0.1:{3000 + number}/" for number in range(CLAIM_BATCH + 1)]
    calls = (store.messages.create(url[7:-1], accepted(webhookUrl=url)) for url in urls)
    await asyncio.gather(*calls)
    await store.queues[0].claim(100)
    await store.queues[0].claim(100)
    await clock.advance(LEASE)
    assert await store.queues[0].reap() == (CLAIM_BATCH, [])
    assert await store.queues[0].reap() == (1, [])


async def test_reap_leaves_leases_that_have_not_ended(store: Store, clock: Clock) -> None:
    await bring(store, "delivering", "old")
    await clock.advance(1_000)
    await bring(store, "delivering", "young")
    await clock.advance(LEASE - 1_000)
    assert await store.queues[0].reap() == (1, [])
    assert (await store.messages.get("young")).state == "delivering"
