"""Each rule holds for a sound snapshot, and finds the one thing that breaks it."""

from typing import Any

import pytest

from scheduler_api.store.audit.invariants import NUMBERS, Snapshot, findings
from scheduler_api.store.codec.record import pack_tail
from tests.support.factories import accepted

HOST = b"127.0.0.1:2"
RECORD = bytes(13) + pack_tail(accepted())
CONCURRENCY = 1
FINISHED = {"delivered": {b"delivered"}, "failed": {b"failed"}}


def snapshot(**changed: Any) -> Snapshot:
    """Sound, one message in each place, unless something is changed."""
    sound: dict[str, Any] = {
        "due": {b"due"},
        "taken": {b"leased", b"parked"},
        "leases": {b"leased"},
        "finished": FINISHED,
        "parked": {HOST: {b"parked"}},
        "parking": {HOST},
        "claims": {b"leased": b"1 w n " + HOST + b" 1"},
        "inflight": {HOST: b"w 1 1"},
        "payloads": dict.fromkeys((b"due", b"leased", b"parked", b"delivered", b"failed"), RECORD),
        "progress": {b"delivered", b"failed"},
    }
    return Snapshot(**sound | changed)


def broken(**changed: Any) -> list[tuple[str, bytes]]:
    return sorted((it.rule, it.subject) for it in findings(snapshot(**changed), CONCURRENCY))


def test_findings_of_a_sound_snapshot_are_empty() -> None:
    assert broken() == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"finished": FINISHED | {"failed": {b"failed", b"due"}}}, [("one_place", b"due")]),
        ({"due": {b"due", b"x"}}, [("no_record", b"x")]),
        ({"finished": FINISHED | {"delivered": set()}}, [("no_place", b"delivered")]),
        ({"progress": {b"x"}}, [("progress_alone", b"x")]),
        ({"claims": {}, "inflight": {}}, [("lease_without_claim", b"leased")]),
        (
            {"leases": set(), "taken": {b"parked"}, "due": {b"due", b"leased"}},
            [("claim_without_lease", b"leased")],
        ),
        ({"taken": {b"parked"}}, [("taken", b"leased")]),
        ({"taken": {b"leased", b"parked", b"due"}}, [("taken", b"due")]),
        (
            {"claims": {b"leased": b"damaged"}},
            [("inflight", HOST), ("lease_without_claim", b"leased")],
        ),
        ({"inflight": {HOST: b"w 1 2"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 0 0"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 2 1"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"v 1 1"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 1 1 v 0 0"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 1 1 w 1 1"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 1 1 x"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w  1 1"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 01 1"}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"1"}}, [("inflight", HOST)]),
        ({"inflight": {}}, [("inflight", HOST)]),
        ({"inflight": {HOST: b"w 1 1", b"other": b""}}, [("inflight", b"other")]),
        ({"inflight": {HOST: b"w 1 1", b"other": b"w 1 1"}}, [("inflight", b"other")]),
        (
            {"parked": {HOST: {b"parked"}, b"other": set()}, "parking": {HOST, b"other"}},
            [("parked_empty", b"other")],
        ),
        ({"parking": set()}, [("parking", HOST)]),
        ({"parking": {HOST, b"other"}}, [("parking", b"other")]),
        ({"strangers": {b"scheduler:{0}:x"}}, [("stranger", b"scheduler:{0}:x")]),
    ],
)
def test_findings_name_only_the_rule_that_is_broken(
    changed: dict[str, Any], found: list[tuple[str, bytes]]
) -> None:
    assert broken(**changed) == found


IDLE: dict[str, Any] = {"leases": set(), "taken": {b"parked"}, "claims": {}, "inflight": {}}


def test_findings_report_parked_messages_of_an_idle_destination() -> None:
    payloads = {b"parked": RECORD, b"delivered": RECORD, b"failed": RECORD}
    assert broken(**IDLE, due=set(), payloads=payloads) == [("stranded", HOST)]


@pytest.mark.parametrize(
    "reason",
    [
        {"limits": {HOST: b"0 0 1 [null,null,true]"}},
        {"opens": {HOST}},
        {"withheld": {HOST}},
    ],
)
def test_findings_accept_parked_messages_that_something_holds_up(
    reason: dict[str, Any],
) -> None:
    payloads = {b"parked": RECORD, b"delivered": RECORD, b"failed": RECORD}
    assert broken(**IDLE, due=set(), payloads=payloads, **reason) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"limits": {HOST: b"2 0 0 [2,null,false]"}}, [("stranded", HOST)]),
        ({"limits": {HOST: b"2 0 0 [2,null,false]"}, "unreachable": {HOST: b"5 1"}}, []),
        (
            {"limits": {HOST: b"2 0 0 [2,null,false]"}, "unreachable": {HOST: b"4 1"}},
            [("stranded", HOST)],
        ),
    ],
)
def test_findings_use_the_limit_of_the_destination_and_1_while_unreachable(
    changed: dict[str, Any], found: list[tuple[str, bytes]]
) -> None:
    payloads = dict.fromkeys((b"leased", b"parked", b"delivered", b"failed"), RECORD)
    assert broken(due=set(), payloads=payloads, **changed) == found


def test_findings_accept_parked_messages_behind_a_due_one() -> None:
    payloads = dict.fromkeys((b"due", b"parked", b"delivered", b"failed"), RECORD)
    assert broken(**IDLE, payloads=payloads) == []


def test_finding_names_the_invariant_of_the_design() -> None:
    (found,) = findings(snapshot(inflight={HOST: b"w 1 2"}), CONCURRENCY)
    number = NUMBERS[found.rule]
    detail = "has the claims {'w': 1}, but its counts are b'w 1 2'"
    assert str(found) == f"{number} inflight: {HOST!r} {detail}"
