"""Judgement of histories."""

from tests.crash.history import Arrival, History, Kill, Offer, judge


def history(*arrivals: Arrival) -> History:
    """A history of one acknowledged message, due at 10."""
    return History(offers={"a": Offer(10.0, "ok")}, arrivals=list(arrivals))


def test_judge_accepts_one_arrival_in_time() -> None:
    verdict = judge(history(Arrival("a", 1, 10.0, 200)), healed_at=20.0)
    assert verdict.sound
    assert (verdict.messages, verdict.duplicates, verdict.late_s) == (1, 0, 0)


def test_judge_finds_an_acknowledged_message_that_never_arrived() -> None:
    assert judge(history(), 20.0).lost == ["a"]


def test_judge_finds_a_message_that_was_only_refused() -> None:
    assert judge(history(Arrival("a", 1, 10.0, 500)), 20.0).lost == ["a"]


def test_judge_accepts_the_loss_of_a_message_without_an_answer() -> None:
    asked = history()
    asked.offers["a"].outcome = "unknown"
    assert judge(asked, 20.0).sound


def test_judge_accepts_the_loss_of_a_message_that_may_have_been_deleted() -> None:
    deleted, perhaps = history(), history()
    deleted.deleted_at["a"] = 5.0
    perhaps.maybe_deleted.add("a")
    assert judge(deleted, 20.0).sound
    assert judge(perhaps, 20.0).sound


def test_judge_finds_an_arrival_that_nobody_created() -> None:
    known = Arrival("a", 1, 10.0, 200)
    assert judge(history(known, Arrival("b", 1, 11.0, 200)), 20.0).ghosts == ["b"]


def test_judge_finds_an_arrival_after_an_answered_delete() -> None:
    deleted = history(Arrival("a", 1, 12.0, 200))
    deleted.deleted_at["a"] = 11.0
    assert judge(deleted, 20.0).ghosts == ["a"]


def test_judge_finds_an_early_arrival() -> None:
    assert judge(history(Arrival("a", 1, 9.999, 200)), 20.0).early == ["a"]


def test_judge_counts_a_repeated_attempt_as_duplicate_up_to_those_in_flight_at_kills() -> None:
    twice = history(Arrival("a", 1, 10.0, 200), Arrival("a", 1, 13.0, 200))
    verdict = judge(twice, 20.0)
    assert (verdict.duplicates, verdict.bound, verdict.sound) == (1, 0, False)
    twice.kills.append(Kill("replica", 11.0, {"a"}))
    verdict = judge(twice, 20.0)
    assert (verdict.bound, verdict.sound, verdict.recovery_s) == (1, True, 2.0)


def test_judge_counts_requests_that_were_open_at_once() -> None:
    open_at_once = history(
        Arrival("a", 1, 10.0, 200, 12.0),
        Arrival("b", 1, 11.0, 200, 13.0),
        Arrival("c", 1, 12.0, 200),
    )
    open_at_once.offers |= dict.fromkeys("bc", Offer(10.0, "ok"))
    verdict = judge(open_at_once, 20.0, limit=2)
    assert (verdict.open, verdict.sound) == (2, True)
    assert not judge(open_at_once, 20.0, limit=1).sound


def test_judge_counts_no_request_of_a_killed_process_as_open() -> None:
    killed = history(Arrival("a", 1, 10.0, 200), Arrival("b", 1, 12.0, 200, 13.0))
    killed.offers["b"] = Offer(10.0, "ok")
    killed.kills.append(Kill("replica", 11.0, {"a"}))
    assert judge(killed, 20.0).open == 1


def test_judge_counts_no_retry_as_duplicate() -> None:
    retried = history(Arrival("a", 1, 10.0, 500), Arrival("a", 2, 15.0, 200))
    assert judge(retried, 20.0).duplicates == 0


def test_judge_measures_lateness_of_overdue_messages_from_the_healing() -> None:
    assert judge(history(Arrival("a", 1, 21.5, 200)), healed_at=20.0).late_s == 1.5
