"""The checks that a new message passes, field by field."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.accept import accept, check_id
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.errors import FieldError, Invalid
from scheduler_api.domain.message import MAX_DELAY, Accepted, NewMessage, Spec, payload
from tests.support.factories import URL, accepted, new_message

YEAR_9999 = datetime(9999, 1, 1, tzinfo=UTC)


def errors(**fields: Any) -> list[FieldError]:
    """What is wrong with a message of these members."""
    with pytest.raises(Invalid) as caught:
        accepted(**fields)
    return caught.value.errors


def only_error(**fields: Any) -> tuple[str, str]:
    (error,) = errors(**fields)
    return error.path, error.message


def raw(body: bytes) -> Accepted:
    """Accepted as it is in the bytes."""
    new = msgspec.json.decode(body, type=NewMessage)
    return accept(new, "UTC", EgressRules.parse("127.0.0.0/8").refusal_of_literal)


def test_accept_of_a_url_alone_is_a_message_for_now_without_a_body() -> None:
    assert accepted() == Accepted(None, accepted().url, None, Spec(delay=0))
    assert accepted().url.url == URL


def test_accept_keeps_every_field() -> None:
    found = accepted(
        id="msg-1",
        payload=[1],
        delay="1m",
        timezone="America/Sao_Paulo",
        method="PUT",
        headers={"X-A": "b"},
        contentType="application/vnd.a+json",
        timeout="1m30s",
    )
    spec = Spec(
        method="PUT",
        headers={"X-A": "b"},
        content_type="application/vnd.a+json",
        body=b"[1]",
        timeout=90,
        delay=60,
        timezone="America/Sao_Paulo",
    )
    assert found == Accepted("msg-1", found.url, None, spec)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "ftp://example.com/",
        "http://user:secret@example.com/",
        "http://example.com/\r\nHost: evil",
        "http://example.com/\x00",
        "http://example.com/" + "a" * 2048,
        "http://exa mple.com/",
        "javascript:alert(1)",
    ],
)
def test_accept_refuses_an_invalid_url(url: str) -> None:
    assert only_error(webhookUrl=url)[0] == "/webhookUrl"


def test_accept_refuses_a_closed_address_and_names_the_setting() -> None:
    path, message = only_error(webhookUrl="http://10.0.0.1/")
    assert path == "/webhookUrl"
    assert "EGRESS_ALLOW" in message


@pytest.mark.parametrize(
    "text", ["a", "a" * 255, "é", "a b", "%2F", "?", "#", "...", "-", "😀" * 255]
)
def test_check_id_accepts(text: str) -> None:
    assert check_id(text) == text
    assert accepted(id=text).id == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "an id must have 1 to 255 characters, not 0"),
        ("a" * 256, "an id must have 1 to 255 characters, not 256"),
        ("a" * 5000, "an id must have 1 to 255 characters, not 5000"),
        ("a/b", "an id must not contain a slash or a control character"),
        ("a\nb", "an id must not contain a slash or a control character"),
        ("\x00", "an id must not contain a slash or a control character"),
        ("\x7f", "an id must not contain a slash or a control character"),
        ("\x85", "an id must not contain a slash or a control character"),
        ("\u2028", "an id must not contain a slash or a control character"),
        (".", "an id must not be . or .."),
        ("..", "an id must not be . or .."),
    ],
)
def test_check_id_refuses(text: str, message: str) -> None:
    assert only_error(id=text) == ("/id", message)


@pytest.mark.parametrize(
    ("text", "zone", "at"),
    [
        ("2046-04-15T02:41:45.000Z", "UTC", datetime(2046, 4, 15, 2, 41, 45, tzinfo=UTC)),
        ("2046-04-15T02:41:45-03:00", "UTC", datetime(2046, 4, 15, 5, 41, 45, tzinfo=UTC)),
        ("2046-04-15T02:41:45", "Asia/Tokyo", datetime(2046, 4, 14, 17, 41, 45, tzinfo=UTC)),
        ("1999-01-01T00:00:00Z", "UTC", datetime(1999, 1, 1, tzinfo=UTC)),
    ],
)
def test_accept_reads_schedule_to_as_an_instant(text: str, zone: str, at: datetime) -> None:
    found = accepted(scheduleTo=text, timezone=zone)
    assert (found.due_at, found.spec.delay) == (at, None)


def test_accept_uses_the_default_time_zone_if_none_is_given() -> None:
    new = new_message(scheduleTo="2046-01-01T00:00")
    at = accept(new, "Asia/Tokyo", lambda *_: None)
    assert at.due_at == datetime(2045, 12, 31, 15, tzinfo=UTC)
    assert at.spec.timezone is None


@pytest.mark.parametrize("text", ["2046-02-30", "tomorrow", "", "1" * 5000, "2046-13-01T00:00Z"])
def test_accept_refuses_an_invalid_schedule_to(text: str) -> None:
    assert only_error(scheduleTo=text)[0] == "/scheduleTo"


def test_accept_refuses_schedule_to_together_with_delay() -> None:
    wrong = only_error(scheduleTo="2046-01-01", delay="1s")
    assert wrong == ("/scheduleTo", "give scheduleTo or delay, not both")


def test_accept_reports_an_unknown_time_zone_once_and_not_for_the_instant_too() -> None:
    path, message = only_error(scheduleTo="2046-01-01", timezone="America/SaoPaulo")
    assert path == "/timezone"
    assert "did you mean America/Sao_Paulo" in message


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [("90s", 90), (90, 90), (0.29, 0.29), (0, 0), ("PT10M", 600), ("1h30m", 5_400), (1.0009, 1)],
)
def test_accept_reads_a_delay_as_a_duration_or_seconds(delay: Any, seconds: float) -> None:
    found = accepted(delay=delay)
    assert (found.due_at, found.spec.delay) == (None, seconds)


@pytest.mark.parametrize("delay", ["", "soon", "-1s", -1, "P1Y", 1e18])
def test_accept_refuses_an_invalid_delay(delay: Any) -> None:
    assert only_error(delay=delay)[0] == "/delay"


def test_accept_refuses_a_delay_that_would_end_after_the_year_9999() -> None:
    longest = int(MAX_DELAY.total_seconds())
    assert accepted(delay=longest).spec.delay == longest
    assert datetime(2400, 1, 1, tzinfo=UTC) + MAX_DELAY < YEAR_9999
    assert only_error(delay=longest + 1) == ("/delay", "a delay must be at most 7,500 years")


@pytest.mark.parametrize(
    ("timeout", "seconds"), [("1s", 1), (900, 900), ("PT15M", 900), ("1500ms", 1.5)]
)
def test_accept_takes_a_timeout_from_1_second_to_15_minutes(timeout: Any, seconds: float) -> None:
    assert accepted(timeout=timeout).spec.timeout == seconds


@pytest.mark.parametrize("timeout", ["999ms", 0, "901s", "1h", "never"])
def test_accept_refuses_a_timeout_outside_that_range(timeout: Any) -> None:
    assert only_error(timeout=timeout)[0] == "/timeout"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-Empty": ""},
        {"Authorization": "Bearer a b"},
        {"x" * 64: "\ttab inside\tis fine".strip()},
        {f"X-{number}": "v" for number in range(50)},
        {"X-Large": "v" * (8 * 1024 - len("X-Large"))},
        {"!#$%&'*+-.^_`|~": "v"},
    ],
)
def test_accept_keeps_valid_headers(headers: dict[str, str]) -> None:
    assert accepted(headers=headers).spec.headers == headers


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("", "v", "a header name has"),
        ("x" * 65, "v", "a header name has"),
        ("X Y", "v", "a header name has"),
        ("X-A\r\nX-B", "v", "a header name has"),
        ("é", "v", "a header name has"),
        ("X", "a\r\nX-Evil: 1", "a header value is"),
        ("X", "a\nb", "a header value is"),
        ("X", "\x00", "a header value is"),
        ("X", "é", "a header value is"),
        ("X", " a", "a header value is"),
        ("X", "a ", "a header value is"),
        *(
            (name, "v", "the service sets this header")
            for name in [
                "Host",
                "content-length",
                "Transfer-Encoding",
                "CONNECTION",
                "Keep-Alive",
                "Proxy-Authenticate",
                "Proxy-Authorization",
                "Proxy-Connection",
                "TE",
                "Trailer",
                "Upgrade",
                "Expect",
                "webhook-id",
                "Webhook-Signature",
                "Scheduler-Attempt",
            ]
        ),
    ],
)
def test_accept_refuses_an_invalid_header(name: str, value: str, message: str) -> None:
    path, detail = only_error(headers={name: value})
    assert path == f"/headers/{name}"
    assert detail.startswith(message)


def test_accept_escapes_the_name_of_an_invalid_header_in_its_path() -> None:
    assert only_error(headers={"a/b~c": "v"})[0] == "/headers/a~1b~0c"


def test_accept_refuses_a_header_that_occurs_twice_in_different_case() -> None:
    wrong = only_error(headers={"X-A": "1", "x-a": "2"})
    assert wrong == ("/headers/x-a", "duplicate header; names are compared without case")


def test_accept_refuses_more_than_50_headers() -> None:
    headers = {f"X-{number}": "v" for number in range(51)}
    assert only_error(headers=headers) == ("/headers", "at most 50 headers are allowed, not 51")


def test_accept_refuses_more_than_8_kib_of_headers() -> None:
    headers = {"X-Large": "v" * (8 * 1024 - len("X-Large") + 1)}
    wrong = only_error(headers=headers)
    assert wrong == ("/headers", "header names and values must be at most 8 KiB together")


@pytest.mark.parametrize("name", ["Content-Type", "content-type"])
def test_accept_takes_the_content_type_from_the_headers(name: str) -> None:
    spec = accepted(headers={name: "text/plain"}, payload="oi").spec
    assert (spec.content_type, spec.body) == ("text/plain", b"oi")


def test_accept_refuses_a_content_type_as_field_and_header() -> None:
    wrong = only_error(headers={"Content-Type": "text/plain"}, contentType="text/plain")
    assert wrong == ("/contentType", "give contentType or the header Content-Type, not both")


@pytest.mark.parametrize("content_type", ["", "text/plain\r\nX: y", "té/xt", "\x00"])
def test_accept_refuses_an_invalid_content_type(content_type: str) -> None:
    assert only_error(contentType=content_type, payload=1)[0] == "/contentType"


def test_accept_refuses_an_empty_content_type_header() -> None:
    assert only_error(headers={"Content-Type": ""})[0] == "/contentType"


@pytest.mark.parametrize("value", [1, None, ["a"], {"a": "b"}, True])
def test_accept_refuses_a_payload_for_text_that_is_not_a_string(value: Any) -> None:
    assert only_error(contentType="text/plain", payload=value) == (
        "/payload",
        "for text/plain the payload must be a string",
    )


def test_accept_without_a_payload_has_no_body_for_any_type() -> None:
    assert accepted(contentType="text/plain").spec.body is None


def test_accept_encodes_text_as_utf_8() -> None:
    spec = accepted(contentType="text/plain", payload="olá\n").spec
    assert spec.body == "olá\n".encode()


@pytest.mark.parametrize(
    "sent",
    [
        b'{ "b": 1,  "a":2 }',
        b"12345678901234567890.10",
        rb'"\u00e9\/"',
        b"null",
        b'""',
        b'{"a":1,"a":2}',
    ],
)
def test_accept_keeps_a_json_payload_byte_for_byte(sent: bytes) -> None:
    spec = raw(b'{"payload": %b, "webhookUrl": "http://127.0.0.1:2/"}' % sent).spec
    assert spec.body == sent
    assert bytes(payload(spec)) == sent


def test_accept_reports_every_invalid_field_at_once() -> None:
    wrong = errors(
        webhookUrl="ftp://example.com",
        id="",
        timezone="Nowhere",
        delay="soon",
        timeout="1h",
        headers={"Host": "x"},
        contentType="text/plain",
        payload=1,
    )
    assert [error.path for error in wrong] == [
        "/webhookUrl",
        "/id",
        "/headers/Host",
        "/timezone",
        "/timeout",
        "/delay",
        "/payload",
    ]


def test_accept_does_not_report_an_internal_error_as_an_invalid_field() -> None:
    def broken(_: str, __: int) -> str | None:
        raise KeyError("ours")

    with pytest.raises(KeyError):
        accept(new_message(), "UTC", broken)


@given(
    st.dictionaries(
        st.sampled_from(["webhookUrl", "id", "scheduleTo", "delay", "timezone", "contentType"]),
        st.text(max_size=300),
    ),
    st.dictionaries(st.text(max_size=70), st.text(max_size=20), max_size=3),
    st.none() | st.text(max_size=5),
)
def test_accept_returns_only_what_can_be_sent_for_any_text(
    fields: dict[str, str], headers: dict[str, str], value: str | None
) -> None:
    body = json.dumps({"webhookUrl": URL} | fields | {"headers": headers, "payload": value})
    try:
        found = raw(body.encode("utf-8", "replace"))
    except (Invalid, msgspec.DecodeError):
        return
    assert found.url.url.isascii()
    assert all(text.isascii() for pair in found.spec.headers.items() for text in pair)
    assert found.due_at is None or found.due_at.utcoffset() == timedelta(0)
