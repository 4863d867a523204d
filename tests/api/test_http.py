"""http.py: which bodies and queries are refused, and what the problem says."""

import codecs
import gzip
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from scheduler_api.api.http import decode
from scheduler_api.domain.errors import Invalid, Malformed
from scheduler_api.domain.message import NewMessage
from scheduler_api.store.store import Store
from tests.api.conftest import MAX_BODY, TOKEN, Api
from tests.support import engines
from tests.support.factories import URL
from tests.support.problems import problem, wrong_paths

HEAD = b"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()
LARGE = 32 * 1024 * 1024  # bytes
DEPTH = 100_000  # nested brackets
NEW = msgspec.json.Decoder(NewMessage)
FIELDS = NewMessage.__struct_encode_fields__


def body(member: bytes) -> bytes:
    """A valid create with one more member."""
    return b'{"webhookUrl": "%b", %b}' % (URL.encode(), member)


def payload(value: bytes) -> bytes:
    return body(b'"payload": ' + value)


MALFORMED = {
    "empty": b"",
    "spaces": b"  ",
    "half": b'{"webhookUrl": ',
    "words": b"hello",
    "a form": b"webhookUrl=http%3A%2F%2Fexample.com",
    "single quotes": b"{'webhookUrl': 'http://example.com'}",
    "trailing comma": b'{"webhookUrl": "http://example.com",}',
    "trailing word": body(b'"id": "a"') + b"x",
    "two values": body(b'"id": "a"') * 2,
    "comment": b"/* */" + body(b'"id": "a"'),
    "two byte order marks": codecs.BOM_UTF8 * 2 + body(b'"id": "a"'),
    "byte order mark alone": codecs.BOM_UTF8,
    "byte order mark inside": body(codecs.BOM_UTF8 + b'"id": "a"'),
    "UTF-16": body(b'"id": "a"').decode().encode("utf-16"),
    "NUL after it": body(b'"id": "a"') + b"\x00",
    "NUL in an id": body(b'"id": "a\x00"'),
    "NUL in the payload": payload(b'"\x00"'),
    "line feed in the payload's string": payload(b'"a\nb"'),
    "NaN": payload(b"NaN"),
    "Infinity": payload(b"-Infinity"),
    "leading zero": payload(b"01"),
    "no digit after the point": payload(b"1."),
    "wrong escape": payload(rb'"\x41"'),
    "not UTF-8 in an id": body(b'"id": "\xff"'),
    "not UTF-8 in the payload": payload(b'"\xff"'),
    "UTF-8 of a surrogate in the payload": payload(b'"\xed\xa0\x80"'),
    "overlong UTF-8": payload(b'"\xc0\xaf"'),
    "half a surrogate pair in an id": body(rb'"id": "\ud800"'),
    "half a surrogate pair in a name": body(rb'"\ud800": 1'),
    "half a surrogate pair in the payload": payload(rb'"\ud800 and more text"'),
    "deep arrays in the payload": payload(b"[" * DEPTH + b"]" * DEPTH),
    "deep arrays without an end": payload(b"[" * DEPTH),
    "deep objects in the payload": payload(b'{"a":' * DEPTH + b"1" + b"}" * DEPTH),
    "compressed": gzip.compress(body(b'"id": "a"')),
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED)
async def test_decode_refuses_what_is_not_json_with_400(
    api: Api, live_store: Store, sent: bytes
) -> None:
    async with api.client.post("/messages", data=sent) as response:
        found = await problem(response, 400, "malformed_request")
    assert found["detail"].startswith("The body is not valid JSON in UTF-8: ")
    assert len(found["detail"]) < 200
    assert await live_store.messages.count() == 0


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (payload(b'"\xff"'), "is not UTF-8."),
        (payload(b"[" * DEPTH), "it is nested too deeply."),
        (body(b"}"), "(byte 42)."),
    ],
)
async def test_decode_says_where_or_why_it_is_not_json(api: Api, sent: bytes, detail: str) -> None:
    async with api.client.post("/messages", data=sent) as response:
        assert (await problem(response, 400, "malformed_request"))["detail"].endswith(detail)


INVALID: dict[str, tuple[bytes, list[str]]] = {
    "an array": (b"[]", ["/"]),
    "null": (b"null", ["/"]),
    "deep arrays": (b"[" * DEPTH + b"]" * DEPTH, ["/"]),
    "nothing": (b"{}", ["/webhookUrl"]),
    "deep arrays as an id": (body(b'"id": ' + b"[" * DEPTH), ["/id"]),
    "deep arrays as a header": (body(b'"headers": {"a": ' + b"[" * DEPTH), ["/headers"]),
    "deep arrays in an unknown field": (body(b'"x": ' + b"[" * DEPTH), ["/x"]),
    "number for an id": (body(b'"id": 1'), ["/id"]),
    "null for the URL": (b'{"webhookUrl": null}', ["/webhookUrl"]),
    "null for a header": (body(b'"headers": {"X-A": null}'), ["/headers"]),
    "null for a field that does not exist": (body(b'"idd": null'), ["/idd"]),
    "NUL in an id": (body(rb'"id": "a\u0000"'), ["/id"]),
    "long id": (body(b'"id": "%b"' % (b"a" * 5000)), ["/id"]),
    "number for a header": (body(b'"headers": {"X-A": 1}'), ["/headers"]),
    "header injected": (body(rb'"headers": {"X-A": "b\r\nX-B: c"}'), ["/headers/X-A"]),
    "URL injected": (rb'{"webhookUrl": "http://a/\r\nX: y"}', ["/webhookUrl"]),
    "other scheme": (b'{"webhookUrl": "ftp://example.com/"}', ["/webhookUrl"]),
    "private address": (b'{"webhookUrl": "http://169.254.169.254/"}', ["/webhookUrl"]),
    "no such day": (body(b'"scheduleTo": "2046-02-30"'), ["/scheduleTo"]),
    "two times": (body(b'"scheduleTo": "2046-02-03", "delay": 1'), ["/scheduleTo"]),
    "boolean for a delay": (body(b'"delay": true'), ["/delay"]),
    "endless delay": (body(b'"delay": 1e999'), ["/delay"]),
    "huge delay": (body(b'"delay": 1' + b"0" * 5000), ["/delay"]),
    "delay past the calendar": (body(b'"delay": 252288000000'), ["/delay"]),
    "other method": (body(b'"method": "TRACE"'), ["/method"]),
    "unknown zone": (body(b'"timezone": "../../etc/passwd"'), ["/timezone"]),
    "object sent as text": (body(b'"contentType": "a/b", "payload": {}'), ["/payload"]),
    "several": (body(b'"id": "", "delay": "x", "timeout": 0'), ["/id", "/timeout", "/delay"]),
}


@pytest.mark.parametrize(("sent", "paths"), INVALID.values(), ids=INVALID)
async def test_create_refuses_wrong_fields_with_422_and_names_them(
    api: Api, live_store: Store, sent: bytes, paths: list[str]
) -> None:
    async with api.client.post("/messages", data=sent) as response:
        assert await wrong_paths(response) == paths
        assert len(await response.read()) < 2000
    assert await live_store.messages.count() == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wehbookUrl", "there is no such field; did you mean webhookUrl?"),
        ("webhook_url", "there is no such field; did you mean webhookUrl?"),
        ("scheduledTo", "there is no such field; did you mean scheduleTo?"),
        ("header", "there is no such field; did you mean headers?"),
        ("qqqq", "there is no such field"),
        ("a\nb", "there is no such field"),
        ("", "there is no such field"),
    ],
)
async def test_decode_suggests_the_nearest_name_for_an_unknown_field(
    api: Api, name: str, message: str
) -> None:
    async with api.client.post("/messages", json={"webhookUrl": URL, name: 1}) as response:
        found = await problem(response, 422, "invalid_request")
    assert found["errors"] == [{"path": f"/{name}", "message": message}]


async def test_decode_skips_a_byte_order_mark(api: Api, live_store: Store) -> None:
    sent = codecs.BOM_UTF8 + body(b'"id": "marked", "payload": {"a": 1}')
    async with api.client.post("/messages", data=sent) as response:
        assert response.status == 201
    many = codecs.BOM_UTF8 + b'{"messages": [%b]}' % body(b'"id": "one of many"')
    async with api.client.post("/messages/batch", data=many) as response:
        assert [it["status"] for it in (await response.json())["results"]] == [201]
    limits = codecs.BOM_UTF8 + b'{"paused": true}'
    async with api.client.put("/destinations/example.com", data=limits) as response:
        assert (await response.json())["paused"] is True
    assert (await live_store.messages.get("marked")).spec.body == b'{"a": 1}'


OPTIONAL = [
    name
    for name in msgspec.structs.fields(NewMessage)
    if not name.required and name.name != "payload"
]


async def test_null_for_an_optional_field_is_the_same_as_no_field(api: Api) -> None:
    nulls = {field.encode_name: None for field in OPTIONAL}
    assert {"id", "delay", "headers", "method", "timeout"} <= set(nulls)
    alone = [{"webhookUrl": URL, name: None} for name in nulls]
    messages = [*alone, {"webhookUrl": URL} | nulls]
    for message in messages:
        async with api.client.post("/messages", json=message) as response:
            assert response.status == 201, await response.text()
            created = (await response.json())["messageId"]
        async with api.client.get(f"/messages/{created}") as response:
            shown = await response.json()
        assert (shown["method"], shown["headers"]) == ("POST", {})
        assert shown["contentType"] == "application/json"
        assert not {"payload", "timezone", "timeout"} & set(shown)
    async with api.client.post("/messages/batch", json={"messages": messages}) as response:
        assert {it["status"] for it in (await response.json())["results"]} == {201}


async def test_null_for_a_limit_is_the_same_as_no_field(api: Api) -> None:
    given = {"concurrency": 3, "rate": "5/s", "paused": True}
    for absent in given:
        async with api.client.put("/destinations/example.com", json=given | {absent: None}) as it:
            shown = await it.json()
        assert it.status == 200
        default = {"concurrency": 64 * engines.PARTITIONS, "rate": None, "paused": False}
        assert {name: shown[name] for name in given} == given | {absent: default[absent]}


async def test_null_as_payload_is_the_json_value_null(api: Api, live_store: Store) -> None:
    async with api.client.post("/messages", data=payload(b"null")) as response:
        created = (await response.json())["messageId"]
    assert (await live_store.messages.get(created)).spec.body == b"null"


def wrong(sent: bytes) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        decode(sent, NEW, FIELDS)
    (error,) = caught.value.errors
    return error.path, error.message


def test_decode_escapes_and_shortens_the_name_of_an_unknown_field() -> None:
    assert wrong(b'{"a/b~": 1}')[0] == "/a~1b~0"
    assert len(wrong(b'{"%b": 1}' % (b"z" * 500_000))[0]) < 300
    assert len(wrong(body(b'"method": "%b"' % (b"z" * 500_000)))[1]) < 300


def test_decode_names_a_nested_field_by_a_json_pointer() -> None:
    class Item(msgspec.Struct, forbid_unknown_fields=True):
        name: str

    class Items(msgspec.Struct):
        items: list[Item]

    with pytest.raises(Invalid) as caught:
        decode(b'{"items": [{"name": "a"}, {"name": 1}]}', msgspec.json.Decoder(Items), ())
    assert [error.path for error in caught.value.errors] == ["/items/1/name"]
    with pytest.raises(Invalid) as caught:
        decode(b'{"items": [{}]}', msgspec.json.Decoder(Items), ())
    assert [error.path for error in caught.value.errors] == ["/items/0/name"]
    with pytest.raises(Invalid) as caught:
        decode(b'{"items": [{"nam": 1}]}', msgspec.json.Decoder(Items), ["name"])
    (error,) = caught.value.errors
    assert (error.path, error.message[-5:]) == ("/items/0/nam", "name?")


@given(st.binary(max_size=60))
def test_decode_returns_a_message_or_refuses_any_bytes(sent: bytes) -> None:
    for whole in (sent, payload(sent), body(sent)):
        try:
            found = decode(whole, NEW, FIELDS)
        except (Invalid, Malformed):
            continue
        json.loads(bytes(found.payload) or b"null")


@pytest.mark.parametrize(
    ("query", "path", "message"),
    [
        ("limit=0", "?limit", "must be at least 1"),
        ("limit=1001", "?limit", "must be at most 1000"),
        ("limit=-1", "?limit", "must be at least 1"),
        ("limit=ten", "?limit", "must be an integer"),
        ("limit=", "?limit", "must be an integer"),
        ("limit=%00", "?limit", "must be an integer"),
        ("limit=%FF", "?limit", "must be an integer"),
        ("limit=" + "9" * 5000, "?limit", ""),
        ("cursor=nonsense", "?cursor", "use the value of nextCursor of the page before"),
        ("cursor=%C3%A9", "?cursor", "use the value of nextCursor of the page before"),
        ("limt=5", "?limt", "there is no such field; did you mean limit?"),
        ("state=failed", "?state", "there is no such field"),
    ],
)
async def test_query_refuses_a_wrong_parameter_with_422_and_names_it(
    api: Api, query: str, path: str, message: str
) -> None:
    async with api.client.get(f"/messages?{query}") as response:
        (error,) = (await problem(response, 422, "invalid_request"))["errors"]
    assert error["path"] == path
    assert error["message"].startswith(message)


async def test_body_with_too_large_a_content_length_is_refused_before_it_is_sent(api: Api) -> None:
    answer = await api.raw(HEAD + b"Content-Length: %d\r\n\r\n" % LARGE)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (found["status"], found["code"]) == (413, "payload_too_large")
    assert "MAX_BODY" in found["detail"]


async def test_expect_100_continue_is_refused_for_too_large_a_body(
    api: Api,
) -> None:
    expect = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % LARGE
    assert (await api.raw(HEAD + expect)).startswith(b"HTTP/1.1 413 ")


async def test_body_of_unknown_length_is_refused_once_it_is_too_large(
    api: Api, live_store: Store
) -> None:
    chunk = b"%x\r\n%b\r\n" % (MAX_BODY + 1, b" " * (MAX_BODY + 1))
    # The last chunk is never sent: the response must not wait for it.
    answer = await api.raw(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert await live_store.messages.count() == 0


async def pieces(size: int) -> AsyncIterator[bytes]:
    start = payload(b"")[:-1] + b'"'
    yield start
    for _ in range((size - len(start) - 2) // 1024):
        yield b"a" * 1024
    yield b"a" * ((size - len(start) - 2) % 1024)
    yield b'"}'


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_of_exactly_the_limit_is_stored(
    api: Api, live_store: Store, chunked: bool
) -> None:
    data: Any = pieces(MAX_BODY)
    if not chunked:
        data = b"".join([piece async for piece in data])
        assert len(data) == MAX_BODY
    async with api.client.post("/messages", data=data) as response:
        assert response.status == 201
    assert await live_store.messages.count() == 1


@pytest.mark.parametrize("chunked", [False, True])
async def test_body_one_byte_over_the_limit_is_refused(
    api: Api, live_store: Store, chunked: bool
) -> None:
    data: Any = pieces(MAX_BODY + 1)
    if not chunked:
        data = b"".join([piece async for piece in data])
    async with api.client.post(
        "/messages", data=BytesIO(data) if not chunked else data
    ) as response:
        await problem(response, 413, "payload_too_large")
    assert await live_store.messages.count() == 0


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/messages"),
        ("GET", "/messages"),
        ("GET", "/messages/a"),
        ("DELETE", "/messages/a"),
    ],
)
async def test_request_without_a_store_gets_503_with_retry_after(
    without_store: Api, method: str, path: str
) -> None:
    data = body(b'"id": "a"') if method == "POST" else None
    with capture_logs() as logs:
        async with without_store.client.request(method, path, data=data) as response:
            await problem(response, 503, "store_unavailable")
            assert response.headers["Retry-After"] == "1"
    assert "request_failed" not in [entry["event"] for entry in logs]
