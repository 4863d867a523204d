"""What a process knows of its destinations: which answer quickly, which hold its slots."""

import pytest

from scheduler_api.delivery import slot_shares as module
from scheduler_api.delivery.slot_shares import MAX_KNOWN, MAX_NAMED, SlotShares
from scheduler_api.delivery.timing import QUICK_REQUEST

SLOTS = 64


class Clock:
    """Stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the module."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def shares(clock: Clock) -> SlotShares:
    assert clock.now  # it stands
    return SlotShares(SLOTS)


def named(shares: SlotShares, free: int = SLOTS) -> dict[bytes, int]:
    names = shares.named(free)
    return dict(zip(names[::2], names[1::2], strict=True))  # type: ignore[arg-type]  # in turn


def send(shares: SlotShares, clock: Clock, name: bytes, seconds: float = 0.0) -> None:
    """One request from begin to end."""
    request = object()
    shares.begin(name, request)
    clock.now += seconds
    shares.end(name, request)


def test_a_destination_without_an_answer_is_named_with_its_open_requests(
    shares: SlotShares,
) -> None:
    for request in range(3):
        shares.begin(b"new", request)
    assert named(shares) == {b"new": 3}


def test_a_destination_that_answered_at_once_is_quick(shares: SlotShares, clock: Clock) -> None:
    send(shares, clock, b"a", QUICK_REQUEST / 2)
    assert named(shares) == {b"a": -1}
    shares.begin(b"a", "next")
    assert named(shares) == {b"a": -1}


def test_a_destination_whose_last_answer_was_late_is_slow(shares: SlotShares, clock: Clock) -> None:
    send(shares, clock, b"a")
    send(shares, clock, b"a", QUICK_REQUEST)
    shares.begin(b"a", "next")
    assert named(shares) == {b"a": 1}


def test_a_slow_destination_without_open_requests_is_named_when_slots_are_few(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"slow", QUICK_REQUEST)
    assert named(shares, SLOTS // 2 + 1) == {}
    assert named(shares, SLOTS // 2) == {b"slow": 1}


def test_a_quick_destination_may_have_a_few_requests_open_for_long(
    shares: SlotShares, clock: Clock
) -> None:
    send(shares, clock, b"a")
    few = SLOTS // 32
    for request in range(few):
        shares.begin(b"a", request)
    clock.now += 2 * QUICK_REQUEST
    shares.begin(b"a", "of now")
    shares.mark_slow()
    assert named(shares) == {b"a": -1}
    shares.end(b"a", "of now")
    shares.begin(b"a", "one more")
    clock.now += 2 * QUICK_REQUEST
    shares.mark_slow()
    assert named(shares) == {b"a": few + 1}


def test_some_slots_are_kept_while_quick_destinations_hold_half(
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


def test_no_slots_are_kept_from_those_that_turned_out_to_be_slow(
    shares: SlotShares, clock: Clock
) -> None:
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


def test_many_open_requests_of_one_that_turns_out_to_be_quick_are_counted(
    shares: SlotShares,
) -> None:
    for request in range(SLOTS):
        shares.begin(b"a", request)
    shares.end(b"a", 0)
    assert shares.kept == SLOTS // 16
    assert named(shares) == {b"a": -1}


def test_a_claim_hears_of_the_latest_quick_ones(shares: SlotShares, clock: Clock) -> None:
    for number in range(MAX_NAMED + 1):
        send(shares, clock, b"%d" % number)
    assert named(shares) == dict.fromkeys(
        (b"%d" % number for number in range(1, MAX_NAMED + 1)), -1
    )


def test_no_more_are_remembered_than_are_known(shares: SlotShares, clock: Clock) -> None:
    for number in range(MAX_KNOWN + 1):
        send(shares, clock, b"%d" % number, QUICK_REQUEST)
    assert len(named(shares, 0)) == MAX_KNOWN
    assert b"0" not in named(shares, 0)


def test_one_claim_leaves_the_slots_that_are_kept(shares: SlotShares, clock: Clock) -> None:
    assert shares.claim_limit(SLOTS) == SLOTS - SLOTS // 16
    assert shares.claim_limit(SLOTS // 16) == SLOTS // 16
    send(shares, clock, b"a")
    for request in range(SLOTS // 2):
        shares.begin(b"a", request)
    assert shares.claim_limit(5) == 5


def test_a_process_of_one_slot_keeps_none(clock: Clock) -> None:
    shares = SlotShares(1)
    assert shares.claim_limit(1) == 1
    send(shares, clock, b"a")
    shares.begin(b"a", "request")
    assert shares.kept == 0
