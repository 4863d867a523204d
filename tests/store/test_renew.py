"""Renew extends a lease that is still held, and reports a lost one."""

import msgspec
from redis.asyncio import Redis

from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.store.conftest import Replica
from tests.support.message_states import bring, everything, fill, outcome
from tests.support.store_clock import Clock


async def test_renew_extends_a_lease_to_a_full_one(store: Store, clock: Clock) -> None:
    claims = await fill(store)
    await clock.advance(10_000)
    assert await store.queues[0].renew(claims) == [True] * CONCURRENCY
    assert (await store.queues[0].claim(1)).lease_in == 15
    await clock.advance(14_999)
    assert await store.queues[0].reap() == (0, [])
    await clock.advance(1)
    assert await store.queues[0].reap() == (CONCURRENCY, [])


async def test_renew_extends_an_ended_lease_that_was_not_reaped(store: Store, clock: Clock) -> None:
    claims = await fill(store)
    await clock.advance(20_000)
    assert await store.queues[0].renew(claims[:1]) == [True]
    assert await store.queues[0].reap() == (CONCURRENCY - 1, [])


async def test_renew_returns_false_for_each_lost_claim(store: Store) -> None:
    claims = await fill(store)
    await store.queues[0].settle(outcome(claims[0]))
    await store.queues[0].release(claims[2:3])
    forged = msgspec.structs.replace(claims[3], fence=claims[3].fence + 1)
    results = await store.queues[0].renew([claims[0], claims[1], claims[2], forged])
    assert results == [False, True, False, False]


async def test_renew_of_an_earlier_claim_does_not_extend_a_later_one(
    store: Store, redis: Redis, clock: Clock
) -> None:
    await bring(store, "scheduled")
    stale = (await store.queues[0].claim(1)).messages
    await clock.advance(15_000)
    await store.queues[0].reap()
    await store.queues[0].claim(1)
    await clock.advance(1_000)
    before = await everything(redis, store.keys[0])
    assert await store.queues[0].renew(stale) == [False]
    assert await everything(redis, store.keys[0]) == before


async def test_renew_ignores_a_claim_of_another_process(store: Store, replica: Replica) -> None:
    other = replica()
    claims = await fill(store)
    assert await other.queues[0].renew(claims) == [False] * CONCURRENCY


async def test_renew_of_no_claims_returns_nothing(store: Store) -> None:
    assert await store.queues[0].renew([]) == []
