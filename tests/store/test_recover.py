"""Recover takes back the claims of a dead process before their leases end."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from scheduler_api.store.queue import CLAIM_BATCH, MAX_CRASHES
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.support.factories import accepted
from tests.support.message_states import everything, fill, outcome
from tests.support.store_clock import Clock, clock_lib


@pytest.fixture
def dead(redis: Redis, prefix: str, clock: Clock) -> Store:
    """What a process that died saw of the same data."""
    return Store(redis, prefix=prefix, concurrency=CONCURRENCY, libs=clock_lib(clock.key))


async def test_recover_makes_claims_due_again_and_counts_a_crash(store: Store, dead: Store) -> None:
    due = await store.messages.create("a", accepted())
    await dead.queues[0].claim(1)
    assert await store.queues[0].recover(dead.worker_id) == (1, [])
    message = await store.messages.get("a")
    assert (message.state, message.crashes, message.attempts_made) == ("scheduled", 1, 0)
    assert message.next_attempt_at == due


async def test_recover_leaves_the_claims_of_others(store: Store, dead: Store) -> None:
    await store.messages.create("a", accepted())
    (ours,) = (await store.queues[0].claim(1)).messages
    assert await store.queues[0].recover(dead.worker_id) == (0, [])
    assert await store.queues[0].settle(outcome(ours))


async def test_recover_again_changes_nothing(store: Store, dead: Store, redis: Redis) -> None:
    await fill(dead)
    assert await store.queues[0].recover(dead.worker_id) == (CONCURRENCY, [])
    before = await everything(redis, store.keys[0])
    assert await store.queues[0].recover(dead.worker_id) == (0, [])
    assert await everything(redis, store.keys[0]) == before


async def test_recover_makes_the_claims_of_the_dead_process_stale(
    store: Store, dead: Store
) -> None:
    await store.messages.create("a", accepted())
    (theirs,) = (await dead.queues[0].claim(1)).messages
    await store.queues[0].recover(dead.worker_id)
    assert not await dead.queues[0].settle(outcome(theirs))
    assert (await store.messages.get("a")).state == "scheduled"


async def test_recover_unparks_messages(store: Store, dead: Store) -> None:
    await fill(dead)
    await store.messages.create("parked", accepted())
    assert (await store.queues[0].claim(1)).messages == []
    await store.queues[0].recover(dead.worker_id)
    claimed = (await store.queues[0].claim(CLAIM_BATCH)).messages
    assert len(claimed) == CONCURRENCY


async def test_recover_looks_at_many_claims_in_several_calls(store: Store, dead: Store) -> None:
    many = 6 * CLAIM_BATCH  # of fewer than 512 the store shows all at once
    for n in range(many):
        await store.messages.create(f"m{n}", accepted(webhookUrl=f"http://127.0.0.{n // 4}/"))
    while (await dead.queues[0].claim(CLAIM_BATCH)).messages:
        pass
    assert await store.queues[0].recover(dead.worker_id) == (many, [])


async def test_recover_fails_a_message_after_too_many_crashes(
    store: Store, redis: Redis, prefix: str, clock: Clock
) -> None:
    await store.messages.create("a", accepted())
    for crashes in range(1, MAX_CRASHES + 1):
        dead = Store(redis, prefix=prefix, concurrency=CONCURRENCY, libs=clock_lib(clock.key))
        await dead.queues[0].claim(1)
        last = crashes == MAX_CRASHES
        assert await store.queues[0].recover(dead.worker_id) == ((0, ["a"]) if last else (1, []))
    assert (await store.messages.get("a")).state == "failed"


async def test_recover_forgets_the_dead_process(store: Store, dead: Store, redis: Redis) -> None:
    await store.messages.create("a", accepted())
    await dead.queues[0].claim(1)
    workers = f"{store.keys[0].base}workers"
    assert await redis.hexists(workers, dead.worker_id)
    await store.queues[0].recover(dead.worker_id)
    assert not await redis.hexists(workers, dead.worker_id)


async def test_recover_does_not_wait_for_the_end_of_leases(store: Store, dead: Store) -> None:
    await store.messages.create("a", accepted())
    claim = await dead.queues[0].claim(1)
    assert claim.lease_in
    assert timedelta(seconds=claim.lease_in) > timedelta(0)
    assert await store.queues[0].reap() == (0, [])
    assert await store.queues[0].recover(dead.worker_id) == (1, [])
