"""HTTP/1.1 framing: for bytes, however they are split into packets, the expected responses.

A refused request gets exactly one problem as its response, and nothing of it is stored.
"""

from typing import NamedTuple

import pytest
from structlog.testing import capture_logs

from scheduler_api.server.protocol.http_protocol import MAX_FIELDS, MAX_HEAD
from scheduler_api.store.store import Store
from tests.api.conftest import MAX_BODY, TOKEN, Api
from tests.support.factories import URL
from tests.support.raw_client import Response, bytewise, exchange, head_and_body, whole

CUTS = whole, head_and_body, bytewise
HOST = b"Host: x\r\n"
AUTH = b"Authorization: Bearer %b\r\n" % TOKEN.encode()
JSON = b'{"webhookUrl": "%b", "delay": 60}' % URL.encode()
SIZE = b"Content-Length: %d\r\n" % len(JSON)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\n" + HOST
H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
SMUGGLED = b"POST /messages HTTP/1.1\r\n" + HOST + AUTH + SIZE + b"\r\n" + JSON


class Row(NamedTuple):
    """The bytes of one or more requests, and the expected result."""

    request: bytes
    statuses: list[int]  # of the responses, in order
    kept: bool  # whether the connection stays open
    stored: int = 0  # number of messages that are stored
    code: str = ""  # of the last response; empty: it is no problem
    method: str = "GET"


def post(fields: bytes, body: bytes = b"", auth: bytes = AUTH) -> bytes:
    return b"POST /messages HTTP/1.1\r\n" + HOST + auth + fields + b"\r\n" + body


def chunk(data: bytes, extension: bytes = b"") -> bytes:
    return b"%x%b\r\n%b\r\n" % (len(data), extension, data)


LAST = chunk(b"")


def filled(size: int) -> bytes:
    """A request with a head of `size` bytes."""
    start = LIVE + b"X-Fill: "
    return start + b"a" * (size - len(start) - 4) + b"\r\n\r\n"


def good(request: bytes, stored: int = 1, status: int = 201) -> Row:
    return Row(request, [status], kept=True, stored=stored)


def bad(request: bytes, status: int = 400, code: str = "malformed_request") -> Row:
    return Row(request, [status], kept=False, code=code)


GOOD = {
    "length": good(post(SIZE, JSON)),
    "spaces around the length": good(
        post(SIZE.replace(b": ", b":  \t").replace(b"\r", b" \r"), JSON)
    ),
    "chunks": good(post(CHUNKED, chunk(JSON[:7]) + chunk(JSON[7:]) + LAST)),
    "chunk extensions": good(post(CHUNKED, chunk(JSON, b";a=b;c") + b"0;d\r\n\r\n")),
    "chunk size with zeros": good(post(CHUNKED, b"00%b%b" % (chunk(JSON), LAST))),
    "coding in capitals": good(post(b"Transfer-Encoding: CHUNKED\r\n", chunk(JSON) + LAST)),
    "trailers": good(post(CHUNKED, chunk(JSON) + b"0\r\nX-Sum: 1\r\nHost: y\r\n\r\n")),
    "empty lines before it": good(b"\r\n\r\n" + post(SIZE, JSON)),
    "expects to be asked": good(post(SIZE + b"Expect: 100-continue\r\n", JSON)),
    "expects something else": good(post(SIZE + b"Expect: 200-ok\r\n", JSON)),
    "absolute target": good(b"GET http://h/health/live HTTP/1.1\r\n" + HOST + b"\r\n", 0, 200),
    "absolute target with another host": good(
        SMUGGLED.replace(b"/messages", b"http://other.example/messages", 1)
    ),
    "fields without values": good(LIVE + b"X-A:\r\nX-B: \r\n\r\n", 0, 200),
    "bytes above ASCII in a value": good(LIVE + b"X-A: \xff\xc3\xa9\r\n\r\n", 0, 200),
    "head of the limit": good(filled(MAX_HEAD), 0, 200),
    "fields of the limit": good(LIVE + b"X: y\r\n" * (MAX_FIELDS - 1) + b"\r\n", 0, 200),
    "body without a head's end in it": good(post(SIZE, JSON)),
    "length of a GET": good(LIVE + b"Content-Length: 2\r\n\r\n{}", 0, 200),
}
UPGRADE = {
    "h2c": good(post(H2C + SIZE, JSON)),
    "h2c in chunks": good(post(H2C + CHUNKED, chunk(JSON[:9]) + chunk(JSON[9:]) + LAST)),
    "h2c without a body": good(LIVE + H2C + b"\r\n", 0, 200),
    "websocket": good(LIVE + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", 0, 200),
    "several protocols": good(
        post(b"Connection: keep-alive, Upgrade\r\nUPGRADE: TLS/1.0, h2c\r\n" + SIZE, JSON)
    ),
    "two fields": good(post(b"Upgrade: h2c\r\nConnection: upgrade\r\nUpgrade: x\r\n" + SIZE, JSON)),
    "not named in Connection": good(post(b"Upgrade: h2c\r\n" + SIZE, JSON)),
    "without its field": good(post(b"Connection: Upgrade\r\n" + SIZE, JSON)),
    "a request as its body": Row(
        post(H2C + b"Content-Length: %d\r\n" % len(SMUGGLED), SMUGGLED),
        *([400], True),
        code="malformed_request",
    ),
    "two of them": Row(post(H2C + SIZE, JSON) * 2, [201, 201], kept=True, stored=2),
    "expects to be asked": good(post(H2C + SIZE + b"Expect: 100-continue\r\n", JSON)),
    "close": Row(post(H2C + b"Connection: close\r\n" + SIZE, JSON), [201], kept=False, stored=1),
    "1.0": Row(
        post(H2C + SIZE, JSON).replace(b"HTTP/1.1", b"HTTP/1.0"), [201], kept=False, stored=1
    ),
    "many": Row((LIVE + H2C + b"\r\n") * 200, [200] * 200, kept=True),
    "with length and chunks": bad(post(H2C + SIZE + CHUNKED, LAST)),
    "with a wrong length": bad(post(H2C + b"Content-Length: 1x\r\n", JSON)),
    "with a bad chunk": bad(post(H2C + CHUNKED, b"zz\r\n")),
}
CLOSED = {
    "close": Row(LIVE + b"Connection: close\r\n\r\n", [200], kept=False),
    "close among others": Row(LIVE + b"Connection: x, Close\r\n\r\n", [200], kept=False),
    "close, and a request behind it": Row(
        LIVE + b"Connection: close\r\n\r\n" + SMUGGLED, [200], kept=False
    ),
    "1.0": Row(LIVE.replace(b"1.1", b"1.0") + b"\r\n", [200], kept=False),
    "1.0 with keep-alive": Row(
        LIVE.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n\r\n", [200], kept=False
    ),
    "HEAD and close": Row(
        LIVE.replace(b"GET", b"HEAD") + b"Connection: close\r\n\r\n",
        *([200], False),
        method="HEAD",
    ),
    "too large": bad(
        post(b"Content-Length: %d\r\n" % (MAX_BODY + 1), b"a" * (MAX_BODY + 1)),
        *(413, "payload_too_large"),
    ),
    "too large in chunks": bad(
        post(CHUNKED, chunk(b"a" * MAX_BODY) + chunk(b"a" * MAX_BODY) + LAST),
        *(413, "payload_too_large"),
    ),
}
REFUSED = {
    "no token, with a body": Row(post(SIZE, JSON, b""), [401], True, code="unauthenticated"),
    "no token, with chunks": Row(
        post(CHUNKED, chunk(JSON) + LAST, b""), [401], True, code="unauthenticated"
    ),
    "a token in the trailers": Row(
        post(CHUNKED, chunk(JSON) + b"0\r\n" + AUTH + b"\r\n", b""),
        *([401], True),
        code="unauthenticated",
    ),
    "no token, then a bad chunk": Row(
        post(CHUNKED, chunk(JSON) + b"zz\r\n", b""), [401], False, code="unauthenticated"
    ),
    "no such address, with a body": Row(
        post(SIZE, JSON).replace(b"/messages", b"/nope"), [404], True, code="not_found"
    ),
    "HEAD with a body": Row(
        LIVE.replace(b"GET", b"HEAD") + b"Content-Length: 2\r\n\r\n{}",
        *([200], True),
        method="HEAD",
    ),
    "no JSON": Row(post(b"Content-Length: 2\r\n", b"{}"), [422], True, code="invalid_request"),
    "empty body": Row(post(b"Content-Length: 0\r\n"), [400], True, code="malformed_request"),
    "no body": Row(post(b""), [400], True, code="malformed_request"),
}
FRAMING = {
    "length and chunks": bad(post(SIZE + CHUNKED, chunk(JSON) + LAST)),
    "chunks and length": bad(post(CHUNKED + SIZE, chunk(JSON) + LAST)),
    "two lengths": bad(post(b"Content-Length: 2\r\nContent-Length: 3\r\n", b"{} ")),
    "the same length twice": bad(post(SIZE * 2, JSON)),
    "lengths in a list": bad(post(b"Content-Length: 2, 2\r\n", b"{}")),
    "length with a sign": bad(post(b"Content-Length: +2\r\n", b"{}")),
    "length below zero": bad(post(b"Content-Length: -1\r\n")),
    "length in hexadecimal": bad(post(b"Content-Length: 0x2\r\n", b"{}")),
    "length beyond 64 bits": bad(post(b"Content-Length: 99999999999999999999999999\r\n")),
    "length of nothing": bad(post(b"Content-Length:\r\n")),
    "another coding": bad(post(b"Transfer-Encoding: gzip\r\n", LAST)),
    "another coding last": bad(post(b"Transfer-Encoding: chunked, identity\r\n", LAST)),
    "unknown coding": bad(post(b"Transfer-Encoding: xchunked\r\n", LAST)),
    "coding after a tab": bad(post(b"Transfer-Encoding:\x0bchunked\r\n", LAST)),
    "coding on two lines": bad(post(b"Transfer-Encoding:\r\n chunked\r\n", LAST)),
    "chunk size of no digits": bad(post(CHUNKED, b"zz\r\n")),
    "chunk size with a sign": bad(post(CHUNKED, b"-1\r\n\r\n")),
    "chunk size with a prefix": bad(post(CHUNKED, b"0x2\r\n{}\r\n" + LAST)),
    "chunk size beyond 64 bits": bad(post(CHUNKED, b"FFFFFFFFFFFFFFFFF\r\n{}\r\n")),
    "chunk size of nothing": bad(post(CHUNKED, b"\r\n{}\r\n" + LAST)),
    "space after the chunk size": bad(post(CHUNKED, b"2 \r\n{}\r\n" + LAST)),
    "bare LF after the chunk size": bad(post(CHUNKED, b"2\n{}\r\n" + LAST)),
    "chunk longer than it says": bad(post(CHUNKED, b"2\r\n{}}\r\n" + LAST)),
    "chunk without its end": bad(post(CHUNKED, b"2\r\n{}0\r\n\r\n")),
    "bad chunk after the whole of the JSON": bad(post(CHUNKED, chunk(JSON) + b"zz\r\n")),
    "bad trailer": bad(post(CHUNKED, chunk(JSON) + b"0\r\nX A: b\r\n\r\n")),
}
SYNTAX = {
    "bare LF": bad(LIVE.replace(b"\r\n", b"\n") + b"\n"),
    "bare LF in a value": bad(LIVE + b"X-A: b\nX-C: d\r\n\r\n"),
    "bare CR in a value": bad(LIVE + b"X-A: b\rX-C: d\r\n\r\n"),
    "NUL in a value": bad(LIVE + b"X-A: b\x00c\r\n\r\n"),
    "control character in a value": bad(LIVE + b"X-A: b\x08c\r\n\r\n"),
    "folded value": bad(LIVE + b"X-A: b\r\n c\r\n\r\n"),
    "space before the colon": bad(post(SIZE.replace(b":", b" :"), JSON)),
    "space in a name": bad(LIVE + b"X A: b\r\n\r\n"),
    "space before a name": bad(LIVE + b" X-A: b\r\n\r\n"),
    "no name": bad(LIVE + b": b\r\n\r\n"),
    "no colon": bad(LIVE + b"X-A\r\n\r\n"),
    "UTF-8 in a name": bad(LIVE + "X-\u00e9: b\r\n\r\n".encode()),
    "UTF-8 in the path": bad(LIVE.replace(b"live", "\u00e9".encode()) + b"\r\n"),
    "UTF-8 in the query": bad(LIVE.replace(b"live", "live?\u00e9".encode()) + b"\r\n"),
    "NUL in the path": bad(LIVE.replace(b"live", b"a\x00b") + b"\r\n"),
    "space in the path": bad(LIVE.replace(b"live", b"a b") + b"\r\n"),
    "tab in the path": bad(LIVE.replace(b"live", b"a\tb") + b"\r\n"),
    "absolute target without a path": bad(LIVE.replace(b"/health/live", b"http://h") + b"\r\n"),
    "absolute target with a bad port": bad(
        LIVE.replace(b"/health/live", b"http://h:99999/health/live") + b"\r\n"
    ),
    "no target": bad(b"GET  HTTP/1.1\r\n\r\n"),
    "relative target": bad(LIVE.replace(b"/health", b"health") + b"\r\n"),
    "unknown method": bad(LIVE.replace(b"GET", b"FETCH") + b"\r\n"),
    "method in small letters": bad(LIVE.replace(b"GET", b"get") + b"\r\n"),
    "version 2": bad(LIVE.replace(b"1.1", b"2") + b"\r\n"),
    "version 3.0": bad(LIVE.replace(b"1.1", b"3.0") + b"\r\n"),
    "another protocol": bad(LIVE.replace(b"HTTP", b"HTCPCP") + b"\r\n"),
    "HTTP/2": bad(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    "TLS": bad(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40),
    "words": bad(b"hello\r\n\r\n"),
}
LIMITS = {
    "head over the limit": bad(filled(MAX_HEAD + 1), 431, "head_too_large"),
    "endless value": bad(LIVE + b"X-A: " + b"a" * 1_000_000, 431, "head_too_large"),
    "endless name": bad(LIVE + b"a" * 1_000_000, 431, "head_too_large"),
    "endless target": bad(b"GET /" + b"a" * 1_000_000, 431, "head_too_large"),
    "long target": bad(LIVE.replace(b"live", b"a" * MAX_HEAD) + b"\r\n", 431, "head_too_large"),
    "one field too many": bad(LIVE + b"X: y\r\n" * MAX_FIELDS + b"\r\n", 431, "head_too_large"),
    "endless fields": bad(LIVE + b"X: y\r\n" * 100_000, 431, "head_too_large"),
    "endless chunk extension": bad(post(CHUNKED, b"2;" + b"a" * 1_000_000), 431, "head_too_large"),
    "endless trailer": bad(
        post(CHUNKED, chunk(JSON) + b"0\r\nX-A: " + b"a" * 1_000_000), 431, "head_too_large"
    ),
    "endless trailers": bad(
        post(CHUNKED, chunk(JSON) + b"0\r\n" + b"X: y\r\n" * 100_000), 431, "head_too_large"
    ),
    "long head that upgrades": bad(
        filled(MAX_HEAD).replace(b"X-Fill", H2C + b"X-Fill"), 431, "head_too_large"
    ),
}
PIPELINED = {
    "two": Row((LIVE + b"\r\n") * 2, [200, 200], kept=True),
    "a hundred": Row((LIVE + b"\r\n") * 100, [200] * 100, kept=True),
    "creates": Row(post(SIZE, JSON) * 3, [201] * 3, kept=True, stored=3),
    "nonsense behind one": Row(
        post(SIZE, JSON) + b"nonsense\r\n\r\n",
        *([201, 400], False, 1),
        code="malformed_request",
    ),
    "nonsense behind the body": Row(
        post(SIZE, JSON + b"GARBAGE"), [201, 400], False, 1, "malformed_request"
    ),
    "a bad chunk behind one": Row(
        post(SIZE, JSON) + post(CHUNKED, b"zz\r\n"),
        *([201, 400], False, 1),
        code="malformed_request",
    ),
    "a long head behind one": Row(
        post(SIZE, JSON) + filled(MAX_HEAD + 1), [201, 431], False, 1, "head_too_large"
    ),
    "a tunnel behind one": Row(
        post(SIZE, JSON) + b"CONNECT h:1 HTTP/1.1\r\n\r\n" + SMUGGLED,
        *([201, 405], False, 1),
        code="method_not_allowed",
    ),
    "a refused one first": Row(
        post(SIZE, JSON, b"") + post(SIZE, JSON), [401, 201], kept=True, stored=1
    ),
    "a long body, then half of a hundred": Row(
        post(b"Content-Length: %d\r\n" % 500_000, b" " * (500_000 - len(JSON)) + JSON)
        + (LIVE + b"\r\n") * 100,
        *([201, *[200] * 100], True, 1),
    ),
}
CONNECT = {
    "tunnel": bad(b"CONNECT h:443 HTTP/1.1\r\n" + HOST + b"\r\n", 405, "method_not_allowed"),
    "tunnel with a request in it": bad(
        b"CONNECT h:443 HTTP/1.1\r\n" + HOST + b"\r\n" + SMUGGLED, 405, "method_not_allowed"
    ),
    "tunnel with a body": bad(
        b"CONNECT h:443 HTTP/1.1\r\n" + HOST + AUTH + SIZE + b"\r\n" + JSON,
        *(405, "method_not_allowed"),
    ),
}
TABLE = {
    f"{kind}: {name}": row
    for kind, rows in {
        "good": GOOD,
        "upgrade": UPGRADE,
        "closed": CLOSED,
        "refused": REFUSED,
        "framing": FRAMING,
        "syntax": SYNTAX,
        "limits": LIMITS,
        "pipelined": PIPELINED,
        "connect": CONNECT,
    }.items()
    for name, row in rows.items()
}


def check(responses: list[Response]) -> None:
    """Check that every refusal is a problem, with Retry-After and Allow where they belong."""
    for response in responses:
        if response.status >= 400:
            assert response.problem["code"]
            assert ("retry-after" in response.headers) == (response.status in (429, 503))
            assert ("allow" in response.headers) == (response.status == 405)


@pytest.mark.parametrize("row", TABLE.values(), ids=TABLE)
async def test_request_gets_one_response_however_it_is_split_into_packets(
    api: Api, live_store: Store, row: Row
) -> None:
    for n, cut in enumerate(CUTS, 1):
        methods = [row.method] * len(row.statuses)
        with capture_logs() as logs:
            found = await exchange(api.port, cut(row.request), len(row.statuses), methods)
        assert {entry["event"] for entry in logs} <= {"message_created"}, "unexpected error"
        assert [one.status for one in found.responses] == row.statuses, cut
        assert found.kept == row.kept, cut
        check(found.responses)
        if row.code:
            assert found.responses[-1].problem["code"] == row.code, cut
        assert await live_store.messages.count() == n * row.stored, cut
