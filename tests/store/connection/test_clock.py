"""The store's clock as replies show it, and leases after the clock was set."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.store.connection.clock import StoreClock
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.support.factories import accepted
from tests.support.message_states import bring
from tests.support.store_clock import Clock

HOUR = 3_600_000  # ms
AHEAD = 1_700_000_000_000.0  # ms; the store's clock − the local one
WAITS = st.floats(0, 0.050)  # seconds


def observe(clock: StoreClock, ahead: float, sent: float, there: float, back: float) -> float:
    """One call with these delays in seconds → the local time of its reply."""
    shown, received = int((sent + there) * 1000 + ahead), sent + there + back
    clock.observe(shown, sent, received)
    return received


@given(st.lists(st.tuples(WAITS, WAITS, WAITS), min_size=1, max_size=20))
def test_store_ms_is_never_ahead_and_behind_by_less_than_the_fastest_reply(
    calls: list[tuple[float, float, float]],
) -> None:
    clock, local = StoreClock(), 1000.0
    for pause, there, back in calls:
        local = observe(clock, AHEAD, local + pause, there, back)
        error = clock.store_ms(local) - (local * 1000 + AHEAD)
        assert -(back * 1000 + 1) - 0.001 <= error <= 0.001


def test_store_ms_follows_the_fastest_reply() -> None:
    clock = StoreClock()
    local = observe(clock, AHEAD, 1000.0, 0.0001, 0.0001)
    local = observe(clock, AHEAD, local, 0.0001, 0.040)
    assert local * 1000 + AHEAD - clock.store_ms(local) < 1.2


def test_store_ms_follows_a_clock_that_was_set_at_once() -> None:
    clock = StoreClock()
    for ahead in (AHEAD, AHEAD + 3_600_000, AHEAD - 3_600_000):
        local = observe(clock, ahead, 1000.0, 0.001, 0.001)
        assert abs(clock.store_ms(local) - (local * 1000 + ahead)) <= 3


def test_local_time_is_the_inverse_of_store_ms() -> None:
    clock = StoreClock()
    local = observe(clock, AHEAD, 1000.0, 0.001, 0.001)
    assert clock.local_time(clock.store_ms(local + 5)) == local + 5


def test_observe_reports_no_jump_for_slow_replies() -> None:
    """The time was read at any moment between request and reply."""
    clock = StoreClock()
    for sent, written, received in ((100, 100, 108), (110, 118, 118), (120, 120, 128)):
        assert clock.observe(NOW + 1000 * written, sent, received) == 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_observe_reports_a_jump_once_without_what_a_slow_reply_may_hide(jump: int) -> None:
    clock = StoreClock()
    assert clock.observe(NOW, 100, 102) == 0
    reported = clock.observe(NOW + 1000 + jump, 101, 102) * 1000
    assert abs(jump) - 3000 <= abs(reported) <= abs(jump)
    assert (reported > 0) == (jump > 0)
    assert clock.observe(NOW + 2000 + jump, 103, 103) == 0


async def test_claim_reports_a_clock_jump(store: Store, clock: Clock) -> None:
    assert (await store.queues[0].claim(1)).jump == 0
    await clock.advance(HOUR)
    assert (await store.queues[0].claim(1)).jump == pytest.approx(HOUR / 1000, abs=60)
    await clock.advance(-HOUR)
    assert (await store.queues[0].claim(1)).jump == pytest.approx(-HOUR / 1000, abs=60)


async def test_lease_of_a_dead_process_ends_after_the_clock_was_set_back(
    store: Store, clock: Clock
) -> None:
    """A living process would renew its lease."""
    await bring(store, "delivering")
    await clock.advance(-2 * HOUR)
    assert (await store.queues[0].claim(1)).lease_in == pytest.approx(2 * HOUR / 1000 + 15)
    await store.queues[0].sweep()
    assert (await store.queues[0].claim(1)).lease_in == 15
    await clock.advance(15_000)
    assert await store.queues[0].reap() == (1, [])


async def test_lease_of_the_longest_allowed_duration_is_kept(store: Store, clock: Clock) -> None:
    """Another replica may have the longest LEASE."""
    await bring(store, "delivering")
    await clock.advance(15_000 - HOUR)
    await store.queues[0].sweep()
    assert (await store.queues[0].claim(1)).lease_in == HOUR / 1000


async def test_claim_keeps_the_order_when_the_clock_is_set_back(store: Store, clock: Clock) -> None:
    """The order of the due instants, for any clock at their creation."""
    await store.messages.create("first", accepted())
    await clock.advance(-HOUR)
    assert (await store.queues[0].claim(10)).messages == [], "never early, by the store's clock"
    await store.messages.create("before", accepted())
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["before"]
    await clock.advance(HOUR)
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["first"]
