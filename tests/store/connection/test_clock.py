"""The store's clock as replies show it, and what is not believed after it was set back."""

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
AHEAD = 1_700_000_000_000.0  # ms of the store's clock over ours
WAITS = st.floats(0, 0.050)  # seconds


def hear(clock: StoreClock, ahead: float, asked: float, there: float, back: float) -> float:
    """One call, of so many seconds each way: the instant of ours at which it was answered."""
    shown, heard = int((asked + there) * 1000 + ahead), asked + there + back
    clock.observe(shown, asked, heard)
    return heard


@given(st.lists(st.tuples(WAITS, WAITS, WAITS), min_size=1, max_size=20))
def test_it_is_never_ahead_and_behind_by_less_than_a_reply_took(
    calls: list[tuple[float, float, float]],
) -> None:
    clock, ours = StoreClock(), 1000.0
    for pause, there, back in calls:
        ours = hear(clock, AHEAD, ours + pause, there, back)
        error = clock.store_ms(ours) - (ours * 1000 + AHEAD)
        assert -(back * 1000 + 1) - 0.001 <= error <= 0.001


def test_the_quickest_reply_counts() -> None:
    clock = StoreClock()
    ours = hear(clock, AHEAD, 1000.0, 0.0001, 0.0001)
    ours = hear(clock, AHEAD, ours, 0.0001, 0.040)
    assert ours * 1000 + AHEAD - clock.store_ms(ours) < 1.2


def test_a_clock_that_was_set_is_followed_at_once_in_either_direction() -> None:
    clock = StoreClock()
    for ahead in (AHEAD, AHEAD + 3_600_000, AHEAD - 3_600_000):
        ours = hear(clock, ahead, 1000.0, 0.001, 0.001)
        assert abs(clock.store_ms(ours) - (ours * 1000 + ahead)) <= 3


def test_when_is_the_inverse_of_at() -> None:
    clock = StoreClock()
    ours = hear(clock, AHEAD, 1000.0, 0.001, 0.001)
    assert clock.local_time(clock.store_ms(ours + 5)) == ours + 5


def test_slow_replies_are_no_jump() -> None:
    """Written at any moment between question and reply."""
    clock = StoreClock()
    for asked, written, heard in ((100, 100, 108), (110, 118, 118), (120, 120, 128)):
        assert clock.observe(NOW + 1000 * written, asked, heard) == 0


@pytest.mark.parametrize("jump", [-HOUR, HOUR])
def test_a_jump_is_told_once_and_less_what_a_slow_reply_may_hide(jump: int) -> None:
    clock = StoreClock()
    assert clock.observe(NOW, 100, 102) == 0
    told = clock.observe(NOW + 1000 + jump, 101, 102) * 1000
    assert abs(jump) - 3000 <= abs(told) <= abs(jump)
    assert (told > 0) == (jump > 0)
    assert clock.observe(NOW + 2000 + jump, 103, 103) == 0


async def test_a_claim_tells_of_a_jump(store: Store, clock: Clock) -> None:
    assert (await store.queues[0].claim(1)).jump == 0
    await clock.advance(HOUR)
    assert (await store.queues[0].claim(1)).jump == pytest.approx(HOUR / 1000, abs=60)
    await clock.advance(-HOUR)
    assert (await store.queues[0].claim(1)).jump == pytest.approx(-HOUR / 1000, abs=60)


async def test_a_lease_of_a_clock_that_was_set_back_ends_all_the_same(
    store: Store, clock: Clock
) -> None:
    """Its process died. A live one would renew it."""
    await bring(store, "delivering")
    await clock.advance(-2 * HOUR)
    assert (await store.queues[0].claim(1)).lease_in == pytest.approx(2 * HOUR / 1000 + 15)
    await store.queues[0].sweep()
    assert (await store.queues[0].claim(1)).lease_in == 15
    await clock.advance(15_000)
    assert await store.queues[0].reap() == (1, [])


async def test_a_lease_that_somebody_may_have_set_is_left_as_it_is(
    store: Store, clock: Clock
) -> None:
    """A replica with the longest LEASE that there is."""
    await bring(store, "delivering")
    await clock.advance(15_000 - HOUR)
    await store.queues[0].sweep()
    assert (await store.queues[0].claim(1)).lease_in == HOUR / 1000


async def test_order_is_kept_when_the_clock_is_set_back(store: Store, clock: Clock) -> None:
    """By when each is due, whatever the clock said when it was created."""
    await store.messages.create("first", accepted())
    await clock.advance(-HOUR)
    assert (await store.queues[0].claim(10)).messages == [], "never early, by the store's clock"
    await store.messages.create("before", accepted())
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["before"]
    await clock.advance(HOUR)
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["first"]
