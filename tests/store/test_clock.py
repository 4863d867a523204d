"""The store's clock as replies show it."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.store.clock import StoreClock

AHEAD = 1_700_000_000_000.0  # ms of the store's clock over ours
WAITS = st.floats(0, 0.050)  # seconds


def hear(clock: StoreClock, ahead: float, asked: float, there: float, back: float) -> float:
    """One call, of so many seconds each way: the instant of ours at which it was answered."""
    shown, heard = int((asked + there) * 1000 + ahead), asked + there + back
    clock.heard(shown, asked, heard)
    return heard


@given(st.lists(st.tuples(WAITS, WAITS, WAITS), min_size=1, max_size=20))
def test_it_is_never_ahead_and_behind_by_less_than_a_reply_took(
    calls: list[tuple[float, float, float]],
) -> None:
    clock, ours = StoreClock(), 1000.0
    for pause, there, back in calls:
        ours = hear(clock, AHEAD, ours + pause, there, back)
        error = clock.at(ours) - (ours * 1000 + AHEAD)
        assert -(back * 1000 + 1) - 0.001 <= error <= 0.001


def test_the_quickest_reply_counts() -> None:
    clock = StoreClock()
    ours = hear(clock, AHEAD, 1000.0, 0.0001, 0.0001)
    ours = hear(clock, AHEAD, ours, 0.0001, 0.040)
    assert ours * 1000 + AHEAD - clock.at(ours) < 1.2


def test_a_clock_that_was_set_is_followed_at_once_in_either_direction() -> None:
    clock = StoreClock()
    for ahead in (AHEAD, AHEAD + 3_600_000, AHEAD - 3_600_000):
        ours = hear(clock, ahead, 1000.0, 0.001, 0.001)
        assert abs(clock.at(ours) - (ours * 1000 + ahead)) <= 3


def test_when_is_the_inverse_of_at() -> None:
    clock = StoreClock()
    ours = hear(clock, AHEAD, 1000.0, 0.001, 0.001)
    assert clock.when(clock.at(ours + 5)) == ours + 5
