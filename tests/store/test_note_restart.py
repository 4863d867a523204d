"""After a restart of the store no lease is reaped for the time of one lease."""

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


async def test_note_restart_forbids_no_reap_at_the_first_call(store: Store) -> None:
    assert await store.queues[0].note_restart() == 0
    assert await store.queues[0].note_restart() == 0


async def test_note_restart_forbids_reaping_for_one_lease_after_a_restart(
    restarted: Store, clock: Clock
) -> None:
    assert await restarted.queues[0].note_restart() == LEASE / 1000
    await clock.advance(LEASE - 1)
    assert await restarted.queues[0].note_restart() == 0.001
    assert await restarted.queues[0].reap() == (0, [])
    await clock.advance(1)
    assert await restarted.queues[0].note_restart() == 0
    assert await restarted.queues[0].reap() == (1, [])


async def test_note_restart_does_not_wait_longer_after_a_clock_set_back(
    restarted: Store, clock: Clock
) -> None:
    """Longer than the longest lease it cannot have been."""
    await restarted.queues[0].note_restart()
    await clock.advance(-2 * 3_600_000)
    assert await restarted.queues[0].note_restart() == 0


async def test_reap_does_nothing_before_a_restart_was_noted(restarted: Store, clock: Clock) -> None:
    await clock.advance(2 * LEASE)
    assert await restarted.queues[0].reap() == (0, [])


async def test_recover_works_while_reaping_is_forbidden(restarted: Store) -> None:
    await restarted.queues[0].note_restart()
    assert await restarted.queues[0].recover(restarted.worker_id) == (1, [])


async def test_note_restart_again_changes_nothing(restarted: Store, redis: Redis) -> None:
    await restarted.queues[0].note_restart()
    before = await everything(redis, restarted.keys[0])
    await restarted.queues[0].note_restart()
    assert await everything(redis, restarted.keys[0]) == before


async def test_note_restart_sees_the_restart_of_a_real_store(
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
