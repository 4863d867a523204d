"""Purge forgets a finished message when its retention ends, and not before."""

from datetime import timedelta

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import MessageNotFound
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.queue import CLAIM_BATCH, WORKER_TTL
from scheduler_api.store.store import Store
from tests.support.message_states import bring, everything
from tests.support.store_clock import Clock

KEPT = {"delivered": timedelta(days=1), "failed": timedelta(days=30)}


def ms(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


@pytest.mark.parametrize("state", FINISHED)
async def test_purge_keeps_a_finished_message_until_its_retention_ends(
    store: Store, clock: Clock, state: str
) -> None:
    await bring(store, state)
    await clock.advance(ms(KEPT[state]) - 1)
    assert await store.queues[0].purge() == 0
    assert (await store.messages.get("a")).state == state
    await clock.advance(1)
    assert await store.queues[0].purge() == 1
    with pytest.raises(MessageNotFound):
        await store.messages.get("a")


@pytest.mark.parametrize("state", ["scheduled", "retrying", "delivering", "parked"])
async def test_purge_never_forgets_a_pending_message(
    store: Store, clock: Clock, state: str
) -> None:
    await bring(store, state)
    await clock.advance(ms(timedelta(days=365)))
    assert await store.queues[0].purge() == 0
    assert (await store.messages.get("a")).id == "a"


async def test_purge_leaves_nothing_of_a_message(store: Store, redis: Redis, clock: Clock) -> None:
    await bring(store, "delivered")
    await bring(store, "failed", "b")
    await clock.advance(ms(timedelta(days=365)))
    assert await store.queues[0].purge() == 2
    left = await everything(redis, store.keys[0])
    assert set(left) == {f"{store.keys[0].base}meta".encode()}


async def test_purge_forgets_at_most_a_hundred_of_each_finished_state(
    store: Store, clock: Clock
) -> None:
    names = [f"{number}" for number in range(CLAIM_BATCH + 1)]
    for name in names:
        await bring(store, "delivered", name)
    await clock.advance(ms(KEPT["delivered"]))
    assert await store.queues[0].purge() == CLAIM_BATCH
    assert await store.queues[0].purge() == 1
    assert await store.queues[0].purge() == 0


async def test_purge_forgets_a_process_that_claimed_nothing_for_a_day(
    store: Store, redis: Redis, clock: Clock
) -> None:
    await bring(store, "delivering")
    workers = f"{store.keys[0].base}workers"
    await clock.advance(ms(WORKER_TTL))
    await store.queues[0].purge()
    assert await redis.hlen(workers) == 1
    await clock.advance(1)
    await store.queues[0].purge()
    assert await redis.hlen(workers) == 0


async def test_purge_forgets_many_dead_processes_in_several_calls(
    store: Store, redis: Redis
) -> None:
    workers = f"{store.keys[0].base}workers"
    await redis.hset(workers, mapping={f"dead-{number}": "1 nonce" for number in range(1_000)})
    await store.queues[0].purge()
    assert await redis.hlen(workers) == 1_000 - CLAIM_BATCH
