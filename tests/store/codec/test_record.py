"""A record: packed and unpacked."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from scheduler_api.store.codec.record import (
    HEAD_SIZE,
    VERSION,
    from_ms,
    pack_tail,
    to_ms,
    unpack_head,
    unpack_record,
    webhook_id_of,
)
from tests.support.factories import accepted

CREATED, SCHEDULED = 1_800_000_000_001, 1_800_000_060_002
INSTANTS = (CREATED.to_bytes(6) + SCHEDULED.to_bytes(6)).rjust(13, VERSION)


@pytest.mark.parametrize(
    ("at", "ms"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 3, tzinfo=timezone(timedelta(hours=3))), 0),
        (datetime(2027, 1, 15, 8, 0, 0, 1000, tzinfo=UTC), 1_800_000_000_001),
        (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), 253_402_300_799_999),
    ],
)
def test_to_ms_and_from_ms_are_inverse(at: datetime, ms: int) -> None:
    assert to_ms(at) == ms
    assert from_ms(ms) == at
    assert from_ms(ms).tzinfo is UTC


def test_to_ms_cuts_off_microseconds() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 0, 1999, tzinfo=UTC)) == 1


def test_unpack_record_returns_all_that_was_accepted() -> None:
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
def test_unpack_record_distinguishes_an_explicit_default_from_an_absent_option(
    fields: dict[str, object],
) -> None:
    asked = accepted(**fields)
    assert unpack_record(INSTANTS + pack_tail(asked)).spec == asked.spec


def test_pack_tail_leaves_out_defaults() -> None:
    asked = accepted(payload="x", scheduleTo="2046-04-15T02:41:45Z")
    assert pack_tail(asked).endswith(b"\n" + msgspec.msgpack.encode({"b": b'"x"'}))


def test_unpack_record_skips_what_a_later_version_has_added_to_a_spec() -> None:
    asked = accepted(payload=1)
    tail = pack_tail(asked)
    url, _, packed = tail.rpartition(b"\n")
    later = msgspec.msgpack.encode(msgspec.msgpack.decode(packed) | {"added": [1]})
    assert unpack_record(INSTANTS + url + b"\n" + later).spec == asked.spec


def test_unpack_record_finds_the_url_behind_bytes_that_look_like_its_line_feed() -> None:
    asked = accepted(webhookUrl="http://127.0.0.1")  # an authority of nine bytes, then ten: \n
    longer = accepted(webhookUrl="http://127.0.0.10")
    for each in (asked, longer):
        tail = pack_tail(each)
        record = unpack_record(INSTANTS[:12] + b"\n" + b"\n" * 8 + tail[8:])
        assert record.url == each.url.url


def test_pack_tail_begins_the_url_with_its_authority() -> None:
    tail = pack_tail(accepted(webhookUrl="http://127.0.0.1:8080/hook"))[8:]
    assert tail[2 : 2 + tail[1]] == b"127.0.0.1:8080"


@pytest.mark.parametrize("url", ["http://127.0.0.1:2/", "https://127.0.0.1/?a=b"])
def test_unpack_record_returns_the_url_with_its_scheme(url: str) -> None:
    assert unpack_record(INSTANTS + pack_tail(accepted(webhookUrl=url))).url == url


@pytest.mark.parametrize("head", [b"", bytes(23), bytes(24), bytes(21) + b"\xff\1h\n"])
def test_unpack_head_refuses_what_is_no_record(head: bytes) -> None:
    with pytest.raises(ValueError, match="has no URL"):
        unpack_head(head)


def fingerprint(**fields: Any) -> bytes:
    return pack_tail(accepted(**fields))[:8]


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({}, {"delay": 0}),
        ({"delay": "1m"}, {"delay": 60.0}),
        ({"timeout": "1.5s"}, {"timeout": 1.5}),
        ({"method": "POST"}, {"contentType": "application/json"}),
        ({"id": "a"}, {"id": "b"}),
        ({"scheduleTo": "2046-01-01T00:00Z"}, {"scheduleTo": "2047-01-01T00:00Z"}),
    ],
)
def test_fingerprint_is_the_same_however_a_request_is_spelled_and_for_any_instant(
    fields: dict[str, Any], other: dict[str, Any]
) -> None:
    assert fingerprint(**fields) == fingerprint(**other)


@pytest.mark.parametrize(
    "other",
    [
        {"delay": 1},
        {"scheduleTo": "2046-01-01T00:00Z"},
        {"payload": 1},
        {"payload": "1"},
        {"method": "PUT"},
        {"headers": {"X-A": "1"}},
        {"contentType": "application/vnd.a+json"},
        {"timeout": 5},
        {"timezone": "Europe/Paris"},
        {"webhookUrl": "http://127.0.0.1:2/other"},
    ],
)
def test_fingerprint_differs_for_another_request(other: dict[str, Any]) -> None:
    assert fingerprint(**other) != fingerprint()


def test_unpack_head_returns_instants_and_url() -> None:
    record = INSTANTS + pack_tail(accepted(webhookUrl="http://127.0.0.1:8080/hook"))
    head = record[: record.index(b"\n", HEAD_SIZE) + 1]
    assert unpack_head(head) == (CREATED, SCHEDULED, "http://127.0.0.1:8080/hook")


def test_webhook_id_of_a_message_is_the_same_in_every_layout() -> None:
    records = [INSTANTS.replace(VERSION, version, 1) for version in (b"\x01", VERSION, b"\x03")]
    assert {webhook_id_of(b"a", record) for record in records} == {
        "msg_a0010e62fe2598e61fe48a71884d8279"
    }
