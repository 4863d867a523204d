"""Bytes and milliseconds: each way and back."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from scheduler_api.domain.attempt import ATTEMPTS_KEPT
from scheduler_api.domain.errors import Invalid
from scheduler_api.store.codec.record import (
    Progress,
    append_attempt,
    from_ms,
    pack_cursor,
    pack_progress,
    pack_tail,
    to_ms,
    unpack_cursor,
    unpack_head,
    unpack_log,
    unpack_progress,
    unpack_record,
)
from tests.support.factories import accepted
from tests.support.message_states import attempt

CREATED, SCHEDULED = 1_800_000_000_001, 1_800_000_060_002
INSTANTS = (CREATED.to_bytes(6) + SCHEDULED.to_bytes(6)).rjust(13, b"\1")


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 3, tzinfo=timezone(timedelta(hours=3))), 0),
        (datetime(2027, 1, 15, 8, 0, 0, 1000, tzinfo=UTC), 1_800_000_000_001),
        (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), 253_402_300_799_999),
    ],
)
def test_an_instant_is_the_same_after_milliseconds(at: datetime, ms: int) -> None:
    assert to_ms(at) == ms
    assert from_ms(ms) == at
    assert from_ms(ms).tzinfo is UTC


def test_microseconds_are_cut_off() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 0, 1999, tzinfo=UTC)) == 1


def test_a_record_holds_all_that_was_accepted() -> None:
    asked = accepted(
        webhookUrl="http://127.0.0.1:8080/hook?a=b",
        payload={"line\n": "é"},
        headers={"X-Key": "v"},
        method="PUT",
        timeout="7s",
        delay="1m",
        timezone="Europe/Paris",
    )
    record = unpack_record(INSTANTS + pack_tail(asked))
    assert (record.created_ms, record.scheduled_ms) == (CREATED, SCHEDULED)
    assert (record.url, record.spec) == (asked.url.url, asked.spec)


@pytest.mark.parametrize(
    "fields",
    [{}, {"delay": 0}, {"contentType": "text/plain", "payload": ""}, {"payload": None}],
)
def test_a_record_tells_what_is_usual_from_what_is_nothing(fields: dict[str, object]) -> None:
    asked = accepted(**fields)
    assert unpack_record(INSTANTS + pack_tail(asked)).spec == asked.spec


def test_a_record_spends_nothing_on_what_is_usual() -> None:
    asked = accepted(payload="x", scheduleTo="2046-04-15T02:41:45Z")
    assert pack_tail(asked).endswith(b"\n" + msgspec.msgpack.encode({"b": b'"x"'}))


def test_unpack_record_skips_what_a_later_version_has_added_to_a_spec() -> None:
    asked = accepted(payload=1)
    tail = pack_tail(asked)
    url, _, packed = tail.rpartition(b"\n")
    later = msgspec.msgpack.encode(msgspec.msgpack.decode(packed) | {"added": [1]})
    assert unpack_record(INSTANTS + url + b"\n" + later).spec == asked.spec


def test_a_record_is_found_behind_bytes_that_look_like_its_line_feed() -> None:
    asked = accepted(webhookUrl="http://127.0.0.1")  # an authority of nine bytes, then ten: \n
    longer = accepted(webhookUrl="http://127.0.0.10")
    for each in (asked, longer):
        record = unpack_record(INSTANTS[:12] + b"\n" + pack_tail(each))
        assert record.url == each.url.url


def test_the_authority_is_marked_in_the_url() -> None:
    tail = pack_tail(accepted(webhookUrl="http://127.0.0.1:8080/hook"))
    start, size = tail[0], tail[1]
    assert tail[2 + start : 2 + start + size] == b"127.0.0.1:8080"


def test_a_head_is_enough_for_instants_and_url() -> None:
    record = INSTANTS + pack_tail(accepted(webhookUrl="http://127.0.0.1:8080/hook"))
    head = record[: record.index(b"\n", 15) + 1]
    assert unpack_head(head) == (CREATED, SCHEDULED, "http://127.0.0.1:8080/hook")


def test_no_progress_is_no_attempts() -> None:
    assert unpack_progress(b"") == Progress(0, 0, b"")
    assert unpack_log(b"") == []


def test_a_progress_is_counts_and_the_packed_log() -> None:
    log = append_attempt(b"", attempt(3))
    progress = unpack_progress(b"3 1 retry 1800000000000\n" + log)
    assert progress == Progress(3, 1, log)


def test_the_first_line_of_a_progress_is_enough_for_the_counts() -> None:
    assert unpack_progress(b"3 1 retry 1800000000000") == Progress(3, 1, b"")


def test_attempts_are_appended_as_they_were() -> None:
    first = attempt(1, status=None, error="timeout", response_excerpt=None, lateness_ms=0)
    second = attempt(2, status=503, response_excerpt="line\nline")
    log = append_attempt(append_attempt(b"", first), second)
    assert unpack_log(log) == [first, second]


def test_what_a_later_version_has_added_to_an_attempt_is_kept() -> None:
    first = attempt(1, location="http://elsewhere/")
    (stored,) = msgspec.msgpack.decode(append_attempt(b"", first))
    later = msgspec.msgpack.encode([[*stored, "added"]])
    log = append_attempt(later, attempt(2))
    assert msgspec.msgpack.decode(log)[0] == [*stored, "added"]
    assert unpack_log(log) == [first, attempt(2)]


def test_only_an_attempt_with_a_location_stores_one() -> None:
    log = append_attempt(append_attempt(b"", attempt(1)), attempt(2, location="/elsewhere"))
    without, with_it = msgspec.msgpack.decode(log)
    assert len(with_it) == len(without) + 1
    assert [each.location for each in unpack_log(log)] == [None, "/elsewhere"]
    assert unpack_log(unpack_progress(pack_progress(2, 0, unpack_log(log))).log) == unpack_log(log)


def test_attempts_stored_before_locations_were_are_read() -> None:
    before = [7, 1_800_000_000_000, 5, 302, None, "seen", 1]
    assert unpack_log(msgspec.msgpack.encode([before])) == [attempt(7, status=302)]


def test_the_oldest_attempts_go_when_there_are_too_many() -> None:
    log = b""
    for number in range(1, ATTEMPTS_KEPT + 6):
        log = append_attempt(log, attempt(number))
    assert [each.number for each in unpack_log(log)] == list(range(6, ATTEMPTS_KEPT + 6))


@pytest.mark.parametrize("message_id", ["a", "é:é", "{0}", " x ", "😀" * 255])
def test_a_cursor_is_a_position(message_id: str) -> None:
    cursor = pack_cursor(253_402_300_799_999, message_id.encode())
    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert unpack_cursor(cursor) == (253_402_300_799_999, message_id.encode())


@pytest.mark.parametrize(
    "cursor",
    [
        "é",
        "a",
        "!!!!",
        "abcd",
        pack_cursor(1, b""),
        pack_cursor(10**15, b"a"),
        "YQ",  # a
        "OmE",  # :a
        "eDph",  # x:a
        "MTI\n",
        "MTI+",
    ],
)
def test_a_cursor_that_nobody_gave_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        unpack_cursor(cursor)
    assert refused.value.errors[0].path == "?cursor"
