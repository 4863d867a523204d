"""Expired claims are taken back, but not within a lease after an outage."""

from structlog.testing import capture_logs

from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.upkeep.reaper import reap
from scheduler_api.store.queue import MAX_CRASHES
from scheduler_api.store.store import Store
from tests.delivery.upkeep.conftest import claim
from tests.support.store_clock import Clock

LEASE = 15.0  # seconds


async def test_reap_waits_a_lease_after_an_outage(store: Store, clock: Clock) -> None:
    await claim(store, "a")
    await clock.advance(60_000)
    health = StoreHealth()
    health.note_answer()
    wait = await reap(store.queues[0], health, LEASE)
    assert wait is not None
    assert 0 < wait <= LEASE
    assert (await store.messages.get("a")).state == "delivering"
    await store.queues[0].claim(1)  # finds nothing; a process claims before it reaps
    with capture_logs() as logs:
        assert await reap(store.queues[0], health, 0) is None
    assert (await store.messages.get("a")).state == "scheduled"
    assert [(it["event"], it["returned"]) for it in logs] == [("leases_reaped", 1)]


async def test_reap_logs_nothing_if_no_lease_expired(store: Store) -> None:
    health = StoreHealth()
    health.note_answer()
    with capture_logs() as logs:
        assert await reap(store.queues[0], health, 0) is None
    assert logs == []


async def test_reap_fails_a_message_after_too_many_crashes(store: Store, clock: Clock) -> None:
    health = StoreHealth()
    health.note_answer()
    await claim(store, "a")
    with capture_logs() as logs:
        for _ in range(MAX_CRASHES):
            await clock.advance(60_000)
            await store.queues[0].claim(1)
            assert await reap(store.queues[0], health, 0) is None
            await store.queues[0].claim(1)
    assert logs[-1] == {
        "event": "message_failed",
        "log_level": "error",
        "message_id": "a",
        "error": "process_died",
    }
