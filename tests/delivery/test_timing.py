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


def test_an_outage_that_can_end_a_lease_counts_as_one() -> None:
    assert OUTAGE_SHARE <= LEFT


def test_a_poll_comes_before_a_silence_counts_as_an_outage() -> None:
    assert POLL_SHARE < OUTAGE_SHARE


def test_leases_are_renewed_in_time_after_a_jump_that_is_not_noted() -> None:
    assert JUMP_SHARE + RENEW_SHARE < LEFT


def test_requests_are_aborted_before_their_lease_ends() -> None:
    assert ABORT_SHARE < MARGIN_SHARE


def test_a_lease_that_is_renewed_is_never_within_the_margin() -> None:
    assert MARGIN_SHARE + RENEW_SHARE < LEFT


def test_a_process_in_standby_looks_after_the_first_one_has_claimed() -> None:
    assert AHEAD < MIN_STANDBY < MAX_STANDBY < SAFETY_POLL


def test_a_freed_slot_waits_for_less_than_a_claim_is_ahead() -> None:
    assert GATHER_SLOTS < AHEAD


def test_backoff_grows() -> None:
    assert MIN_BACKOFF < MAX_BACKOFF
