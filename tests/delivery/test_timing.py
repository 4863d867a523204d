"""How the intervals of the dispatcher depend on each other."""

from scheduler_api.delivery import timing
from scheduler_api.delivery.timing import (
    ABORT_SHARE,
    AHEAD,
    GATHER_SLOTS,
    JUMP_SHARE,
    MARGIN_SHARE,
    MAX_BACKOFF,
    MAX_STANDBY,
    MIN_BACKOFF,
    MIN_STANDBY,
    OUTAGE_SHARE,
    POLL_SHARE,
    RENEW_SHARE,
    SAFETY_POLL,
)

# Of a lease, at any time while the store answers: it is renewed once RENEW_SHARE of it has passed,
# which the renewer may notice one interval later.
LEFT = 1 - 2 * RENEW_SHARE


def test_intervals_are_positive() -> None:
    assert all(value > 0 for name, value in vars(timing).items() if name.isupper())


def test_outage_share_counts_each_outage_that_can_end_a_lease() -> None:
    assert OUTAGE_SHARE <= LEFT


def test_poll_share_is_shorter_than_an_outage() -> None:
    assert POLL_SHARE < OUTAGE_SHARE


def test_jump_share_leaves_time_to_renew() -> None:
    assert JUMP_SHARE + RENEW_SHARE < LEFT


def test_abort_share_notices_a_lease_before_it_ends() -> None:
    assert ABORT_SHARE < MARGIN_SHARE


def test_margin_share_is_not_reached_before_the_next_renewal() -> None:
    assert MARGIN_SHARE + RENEW_SHARE < LEFT


def test_standby_is_longer_than_a_claim_is_ahead() -> None:
    assert AHEAD < MIN_STANDBY < MAX_STANDBY < SAFETY_POLL


def test_gather_slots_is_shorter_than_a_claim_is_ahead() -> None:
    assert GATHER_SLOTS < AHEAD


def test_backoff_grows() -> None:
    assert MIN_BACKOFF < MAX_BACKOFF
