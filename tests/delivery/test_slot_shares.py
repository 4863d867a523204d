"""What a process knows of its destinations: which are quick, and which hold its slots."""

import pytest

from scheduler_api.delivery import slot_shares as module
from scheduler_api.delivery.slot_shares import MAX_KNOWN, MAX_NAMED, SlotShares
from scheduler_api.delivery.timing import QUICK_REQUEST

SLOTS = 64


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replaces the clock of the module."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def shares(clock: Clock) -> SlotShares:
    assert clock.now  # the module uses it
    return SlotShares(SLOTS)


def named(shares: SlotShares, free: int = SLOTS) -> dict[bytes, int]:
    names = shares.named(free)
    return dict(zip(names[::2], names[1::2], strict=True))  # type: ignore[arg-type]  # in turn


def send(shares: SlotShares, clock: Clock, name: bytes, seconds: float = 0.0) -> None:
    """One request, from start to end."""
    request = object()
    shares.begin(name, request)
    clock.now += seconds
    shares.end(name, request)


def test_named_counts_open_requests_of_a_destination_without_a_response(
    shares: SlotShares,
) -> None:
    for request in range(3):
        shares.begin(b"new", request)
    assert named(shares) == {b"new": 3}


def test_named_tells_whether_a_quick_destination_has_open_requests(
    shares: SlotShares, clock: Clock
) -> None:
    for name in (b"a", b"at rest"):
        send(shares, clock, name)
    for name in (b"a", b"slow"):
        shares.begin(name, "request")
    assert shares.named(SLOTS) == [b"a", -2, b"slow", 1, b"at rest", -1]


def test_named_marks_a_destination_that_responded_soon_as_quick(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"a", QUICK_REQUEST / 2)
    assert named(shares) == {b"a": -1}
    shares.begin(b"a", "next")
    assert named(shares) == {b"a": -2}


def test_named_counts_requests_of_a_destination_whose_last_response_was_late(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"a")
    send(shares, clock, b"a", QUICK_REQUEST)
    shares.begin(b"a", "next")
    assert named(shares) == {b"a": 1}


def test_named_has_slow_destinations_without_open_requests_when_few_slots_are_free(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"slow", QUICK_REQUEST)
    assert named(shares, SLOTS // 2 + 1) == {}
    assert named(shares, SLOTS // 2) == {b"slow": 1}


def test_mark_slow_allows_a_quick_destination_a_few_long_requests(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"a")
    few = SLOTS // 32
    for request in range(few):
        shares.begin(b"a", request)
    clock.now += 2 * QUICK_REQUEST
    shares.begin(b"a", "of now")
    shares.mark_slow()
    assert named(shares) == {b"a": -2}
    shares.end(b"a", "of now")
    shares.begin(b"a", "one more")
    clock.now += 2 * QUICK_REQUEST
    shares.mark_slow()
    assert named(shares) == {b"a": few + 1}


def test_kept_is_set_while_quick_destinations_hold_half_of_the_slots(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"a")
    for request in range(SLOTS // 2 - 1):
        shares.begin(b"a", request)
    assert shares.kept == 0
    shares.begin(b"a", "half")
    assert shares.kept == SLOTS // 16
    shares.end(b"a", "half")
    assert shares.kept == 0


def test_kept_is_zero_once_the_quick_destination_is_slow(shares: SlotShares, clock: Clock) -> None:
    send(shares, clock, b"a")
    for request in range(SLOTS):
        shares.begin(b"a", request)
    assert shares.kept == SLOTS // 16
    clock.now += 2 * QUICK_REQUEST
    shares.mark_slow()
    assert shares.kept == 0
    assert named(shares) == {b"a": SLOTS}
    for request in range(SLOTS):
        shares.end(b"a", request)
    assert shares.kept == 0


def test_kept_counts_open_requests_of_a_destination_that_becomes_quick(
    shares: SlotShares,
) -> None:
    for request in range(SLOTS):
        shares.begin(b"a", request)
    shares.end(b"a", 0)
    assert shares.kept == SLOTS // 16
    assert named(shares) == {b"a": -2}


def test_named_has_the_latest_quick_destinations(shares: SlotShares, clock: Clock) -> None:
    for number in range(MAX_NAMED + 1):
        send(shares, clock, b"%d" % number)
    assert named(shares) == dict.fromkeys(
        (b"%d" % number for number in range(1, MAX_NAMED + 1)), -1
    )


def test_named_has_at_most_max_known_slow_destinations(shares: SlotShares, clock: Clock) -> None:
    for number in range(MAX_KNOWN + 1):
        send(shares, clock, b"%d" % number, QUICK_REQUEST)
    assert len(named(shares, 0)) == MAX_KNOWN
    assert b"0" not in named(shares, 0)


def test_claim_limit_leaves_the_slots_to_keep(shares: SlotShares, clock: Clock) -> None:
    assert shares.claim_limit(SLOTS) == SLOTS - SLOTS // 16
    assert shares.claim_limit(SLOTS // 16) == SLOTS // 16
    send(shares, clock, b"a")
    for request in range(SLOTS // 2):
        shares.begin(b"a", request)
    assert shares.claim_limit(5) == 5


def test_kept_is_zero_with_one_slot(clock: Clock) -> None:
    shares = SlotShares(1)
    assert shares.claim_limit(1) == 1
    send(shares, clock, b"a")
    shares.begin(b"a", "request")
    assert shares.kept == 0
