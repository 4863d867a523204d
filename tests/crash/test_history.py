"""The judge finds what it is there to find."""

from tests.crash.history import Arrival, History, Kill, Offer, judge


def history(*arrivals: Arrival) -> History:
    """Of one acknowledged message, due at 10."""
    return History(offers={"a": Offer(10.0, "ok")}, arrivals=list(arrivals))


def test_one_that_arrived_once_and_in_time_is_sound() -> None:
    verdict = judge(history(Arrival("a", 1, 10.0, 200)), healed_at=20.0)
    assert verdict.sound
    assert (verdict.messages, verdict.duplicates, verdict.late_s) == (1, 0, 0)


def test_an_acknowledged_message_that_never_arrived_is_lost() -> None:
    assert judge(history(), 20.0).lost == ["a"]


def test_one_that_was_only_refused_is_lost() -> None:
    assert judge(history(Arrival("a", 1, 10.0, 500)), 20.0).lost == ["a"]


def test_one_that_was_not_acknowledged_may_be_missing() -> None:
    asked = history()
    asked.offers["a"].outcome = "unknown"
    assert judge(asked, 20.0).sound


def test_one_that_was_or_may_have_been_deleted_may_be_missing() -> None:
    deleted, perhaps = history(), history()
    deleted.deleted_at["a"] = 5.0
    perhaps.maybe_deleted.add("a")
    assert judge(deleted, 20.0).sound
    assert judge(perhaps, 20.0).sound


def test_what_nobody_offered_is_a_ghost() -> None:
    known = Arrival("a", 1, 10.0, 200)
    assert judge(history(known, Arrival("b", 1, 11.0, 200)), 20.0).ghosts == ["b"]


def test_what_comes_after_an_answered_delete_is_a_ghost() -> None:
    deleted = history(Arrival("a", 1, 12.0, 200))
    deleted.deleted_at["a"] = 11.0
    assert judge(deleted, 20.0).ghosts == ["a"]


def test_what_comes_before_its_time_is_early() -> None:
    assert judge(history(Arrival("a", 1, 9.999, 200)), 20.0).early == ["a"]


def test_an_attempt_that_comes_twice_is_a_duplicate_unless_a_kill_excuses_it() -> None:
    twice = history(Arrival("a", 1, 10.0, 200), Arrival("a", 1, 13.0, 200))
    verdict = judge(twice, 20.0)
    assert (verdict.duplicates, verdict.bound, verdict.sound) == (1, 0, False)
    twice.kills.append(Kill("replica", 11.0, {"a"}))
    verdict = judge(twice, 20.0)
    assert (verdict.bound, verdict.sound, verdict.recovery_s) == (1, True, 2.0)


def test_a_retry_is_no_duplicate() -> None:
    retried = history(Arrival("a", 1, 10.0, 500), Arrival("a", 2, 15.0, 200))
    assert judge(retried, 20.0).duplicates == 0


def test_lateness_counts_from_the_healing_for_what_was_overdue() -> None:
    assert judge(history(Arrival("a", 1, 21.5, 200)), healed_at=20.0).late_s == 1.5
