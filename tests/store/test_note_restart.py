"""After a restart of the store nobody reaps until each holder had the time of a lease."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.store import Store
from tests.support.factories import accepted
from tests.support.message_states import everything
from tests.support.store_clock import Clock

LEASE = 15_000  # ms, of `store`


@pytest.fixture
async def restarted(store: Store, redis: Redis) -> Store:
    """Over a store that was greeted in an earlier run of it; one message is leased."""
    await store.queues[0].note_restart()
    await store.messages.create("a", accepted())
    await store.queues[0].claim(1)
    await redis.hset(store.keys[0].meta, "run_id", "of an earlier run")
    return store


async def test_the_first_greeting_forbids_nothing(store: Store) -> None:
    assert await store.queues[0].note_restart() == 0
    assert await store.queues[0].note_restart() == 0


async def test_a_restart_gives_every_lease_its_time_again(restarted: Store, clock: Clock) -> None:
    assert await restarted.queues[0].note_restart() == LEASE / 1000
    await clock.advance(LEASE - 1)
    assert await restarted.queues[0].note_restart() == 0.001
    assert await restarted.queues[0].reap() == (0, [])
    await clock.advance(1)
    assert await restarted.queues[0].note_restart() == 0
    assert await restarted.queues[0].reap() == (1, [])


async def test_a_clock_that_was_set_back_does_not_lengthen_that_time(
    restarted: Store, clock: Clock
) -> None:
    """Longer than the longest lease it cannot have been."""
    await restarted.queues[0].note_restart()
    await clock.advance(-2 * 3_600_000)
    assert await restarted.queues[0].note_restart() == 0


async def test_nobody_reaps_before_a_restart_was_greeted(restarted: Store, clock: Clock) -> None:
    await clock.advance(2 * LEASE)
    assert await restarted.queues[0].reap() == (0, [])


async def test_a_dead_process_is_recovered_from_in_that_time_too(restarted: Store) -> None:
    await restarted.queues[0].note_restart()
    assert await restarted.queues[0].recover(restarted.worker_id) == (1, [])


async def test_greeting_twice_is_as_greeting_once(restarted: Store, redis: Redis) -> None:
    await restarted.queues[0].note_restart()
    before = await everything(redis, restarted.keys[0])
    await restarted.queues[0].note_restart()
    assert await everything(redis, restarted.keys[0]) == before


async def test_each_run_of_a_real_store_is_told_from_the_last(
    own_store: Store, server: EmbeddedStore, tmp_path: Path
) -> None:
    assert await own_store.queues[0].note_restart() == 0
    await server.stop()
    again = EmbeddedStore(tmp_path, fsync="no")
    await again.start()
    try:
        assert await own_store.queues[0].note_restart() > 0
    finally:
        await again.stop()
