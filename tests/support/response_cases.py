"""Responses as bytes, each with the outcome that its attempt must have."""

from dataclasses import dataclass
from typing import Final

OK: Final = b"HTTP/1.1 200 OK\r\n"
EMPTY: Final = b"Content-Length: 0\r\n\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
BAD, GONE = "bad_response", "disconnected"  # errors of attempts without a response
HALF_CUT: Final = "a head without its end is no answer, because the answer may have been another"


@dataclass(frozen=True)
class Case:
    """One response; its connection ends after it, unless it is kept."""

    name: str
    answer: bytes
    outcome: int | str  # the status, or the error of an attempt without a response
    kept: bool = False  # whether the connection may carry the next request
    body: str | None = None  # the excerpt of the body
    waits: bool = False  # whether only the end of the connection ends it
    unlike_curl: str = ""  # why the outcome differs from curl's

    def __str__(self) -> str:
        return self.name


def _fields(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)


CASES: Final = [
    # Valid responses.
    Case("a length", OK + b"Content-Length: 2\r\n\r\nok", 200, kept=True, body="ok"),
    Case("a length of zero", OK + EMPTY, 200, kept=True),
    Case("204", b"HTTP/1.1 204 No Content\r\n\r\n", 204, kept=True),
    Case(
        "304 with the length of what it stands for", b"HTTP/1.1 304 N\r\n" + EMPTY, 304, kept=True
    ),
    Case("500", b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", 500, kept=True, body="no"),
    Case("chunks", OK + CHUNKED + b"\r\n2\r\nok\r\n1;x=y\r\n!\r\n0\r\n\r\n", 200, True, "ok!"),
    Case(
        "chunks and trailers", OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX: y\r\n\r\n", 200, True, "ok"
    ),
    Case("until its end", OK + b"\r\nok", 200, body="ok", waits=True),
    Case("until its end, without a body", OK + b"\r\n", 200, waits=True),
    Case("close", OK + b"Connection: close\r\n" + EMPTY, 200),
    Case("close, twice", OK + b"Connection: foo\r\nconnection: Close\r\n" + EMPTY, 200),
    Case(
        "an upgrade is offered", OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + EMPTY, 200, True
    ),
    Case("HTTP/1.0", b"HTTP/1.0 200 OK\r\n\r\nok", 200, body="ok", waits=True),
    Case("HTTP/1.0 with a length", b"HTTP/1.0 200 OK\r\n" + EMPTY, 200),
    Case(
        "HTTP/1.0, kept",
        b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n" + EMPTY,
        200,
        kept=True,
    ),
    # Notifier before it.
    Case("100", b"HTTP/1.1 100 Continue\r\n\r\n" + OK + EMPTY, 200, kept=True),
    Case("103", b"HTTP/1.1 103 Hints\r\nLink: <x>\r\n\r\n" + OK + EMPTY, 200, kept=True),
    Case("three of them", b"HTTP/1.1 102 P\r\n\r\n" * 3 + OK + EMPTY, 200, kept=True),
    Case("100 and nothing else", b"HTTP/1.1 100 Continue\r\n\r\n", GONE, waits=True),
    Case("100 and nonsense", b"HTTP/1.1 100 Continue\r\n\r\nnonsense\r\n\r\n", BAD),
    Case("100 without end", b"HTTP/1.1 100 C\r\n\r\n" * 4000, BAD),
    Case("101", _fields(b"HTTP/1.1 101 S", b"Upgrade: x", b"Connection: Upgrade", b"") + b"x", 101),
    # The status line.
    Case("no reason", b"HTTP/1.1 200\r\n" + EMPTY, 200, kept=True),
    Case("an empty reason", b"HTTP/1.1 200 \r\n" + EMPTY, 200, kept=True),
    Case("a reason at once", b"HTTP/1.1 200OK\r\n" + EMPTY, 200, kept=True),
    Case("two spaces", b"HTTP/1.1  200  OK\r\n" + EMPTY, 200, kept=True),
    Case("lower case", b"http/1.1 200 ok\r\n" + EMPTY, 200, kept=True),
    Case("a long reason", b"HTTP/1.1 200 " + b"y" * 60_000 + b"\r\n" + EMPTY, 200, kept=True),
    Case("UTF-8 in the reason", b"HTTP/1.1 200 \xc3\xa9\xff\r\n" + EMPTY, 200, kept=True),
    Case("NUL in the reason", b"HTTP/1.1 200 O\0K\r\n" + EMPTY, 200),
    Case("a bare CR in the reason", b"HTTP/1.1 200 O\rK\r\n" + EMPTY, 200),
    Case("a status above 599", b"HTTP/1.1 999 ?\r\n" + EMPTY, 999, kept=True),
    Case("HTTP/2", b"HTTP/2 200 OK\r\n" + EMPTY, 200),
    Case("HTTP/2.0", b"HTTP/2.0 200 OK\r\n" + EMPTY, 200),
    Case("HTTP/1.2", b"HTTP/1.2 200 OK\r\n" + EMPTY, BAD),
    Case("HTTP/0.9", b"HTTP/0.9 200 OK\r\n" + EMPTY, BAD),
    Case("HTTP/1", b"HTTP/1 200 OK\r\n" + EMPTY, BAD),
    Case("HTTP/3", b"HTTP/3 200 OK\r\n" + EMPTY, BAD),
    Case("ICY", b"ICY 200 OK\r\n" + EMPTY, BAD),
    Case("RTSP", b"RTSP/1.0 200 OK\r\n" + EMPTY, BAD),
    Case("a tab for the space", b"HTTP/1.1\t200 OK\r\n" + EMPTY, BAD),
    Case("no space", b"HTTP/1.1200 OK\r\n" + EMPTY, BAD),
    Case("two digits", b"HTTP/1.1 20 OK\r\n" + EMPTY, BAD),
    Case("four digits", b"HTTP/1.1 2000 OK\r\n" + EMPTY, BAD),
    Case("a status below 100", b"HTTP/1.1 099 OK\r\n" + EMPTY, BAD),
    Case("a line before it", b"\r\n" + OK + EMPTY, BAD),
    Case("a space before it", b" " + OK + EMPTY, BAD),
    Case("a byte order mark before it", b"\xef\xbb\xbf" + OK + EMPTY, BAD),
    Case("nonsense", b"no http\r\n\r\n", BAD),
    Case("nonsense without a line", b"\x16\x03\x01", BAD),
    Case("nonsense without end", b"y" * 70_000, BAD),
    Case("a status line without end", b"HTTP/1.1 200 " + b"y" * 70_000, BAD),
    # Header fields.
    Case("a value of 60,000 bytes", OK + b"X: %b\r\n" % (b"y" * 60_000) + EMPTY, 200, kept=True),
    Case("1,000 fields", OK + b"X: y\r\n" * 1000 + EMPTY, 200, kept=True),
    Case("a head over 64 KiB", OK + b"X: yyy\r\n" * 10_000 + EMPTY + b"ok", 200),
    Case("a head over 64 KiB without end", OK + b"X: yyy\r\n" * 10_000, 200),
    Case(
        "a head over 64 KiB after 100",
        b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 500 No\r\n" + b"X: yyy\r\n" * 10_000 + EMPTY,
        500,
    ),
    Case(
        "a 100 over 64 KiB",
        b"HTTP/1.1 100 C\r\n" + b"X: yyy\r\n" * 10_000 + b"\r\n" + OK + EMPTY,
        BAD,
        unlike_curl="it reads 300 KiB",
    ),
    Case("UTF-8 in a value", OK + b"X: \xc3\xa9\xff\r\n" + EMPTY, 200, kept=True),
    Case("NUL in a value", OK + b"X: a\0b\r\n" + EMPTY, 200),
    Case("controls in a value", OK + b"X: \x01\x7f\x80\r\n" + EMPTY, 200, kept=True),
    Case("a cookie of nonsense", OK + b"Set-Cookie: =;;\x01=\r\n" + EMPTY, 200, kept=True),
    Case("odd bytes in a name", OK + b"X y\x80\x01(): z\r\n" + EMPTY, 200, kept=True),
    Case("an empty name", OK + b": z\r\n" + EMPTY, 200, kept=True),
    Case("no colon", OK + b"nonsense\r\n" + EMPTY, 200, kept=True),
    Case("a folded line", OK + b"X: a\r\n b\r\n" + EMPTY, 200),
    Case("a folded first line", OK + b"\tX: a\r\n" + EMPTY, 200),
    Case("a bare CR", OK + b"X: a\rb\r\n" + EMPTY, 200),
    Case("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, body="ok"),
    Case("bare LF here and there", OK + b"X: y\nContent-Length: 2\r\n\nok", 200, body="ok"),
    # End of the body.
    Case("more than its length", OK + b"Content-Length: 2\r\n\r\nokmore", 200, body="ok"),
    Case("less than its length", OK + b"Content-Length: 9\r\n\r\nok", 200, body="ok", waits=True),
    Case("204 with a body", b"HTTP/1.1 204 N\r\nContent-Length: 2\r\n\r\nok", 204),
    Case("204 with chunks", b"HTTP/1.1 204 N\r\n" + CHUNKED + b"\r\n0\r\n\r\n", 204),
    Case("204 with a body of no length", b"HTTP/1.1 204 N\r\n\r\nok", 204),
    Case("304 with a body", b"HTTP/1.1 304 N\r\nContent-Length: 2\r\n\r\nok", 304),
    Case("205 with a body", b"HTTP/1.1 205 R\r\nContent-Length: 2\r\n\r\nok", 205, True, "ok"),
    Case("a length twice", OK + b"Content-Length: 2\r\n" * 2 + b"\r\nok", 200, body="ok"),
    Case("two lengths", OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nokk", 200, body="ok"),
    Case("a list of lengths", OK + b"Content-Length: 2, 2\r\n\r\nok", 200, body="ok"),
    Case("a length of letters", OK + b"Content-Length: x\r\n\r\nok", 200),
    Case("a negative length", OK + b"Content-Length: -1\r\n\r\nok", 200),
    Case("an empty length", OK + b"Content-Length:\r\n\r\nok", 200),
    Case(
        "a length of 5,000 digits",
        OK + b"Content-Length: " + b"1" * 5000 + b"\r\n\r\nok",
        200,
    ),
    Case("a space after a length's name", OK + b"Content-Length : 2\r\n\r\nok", 200, True, "ok"),
    Case("other fields of that name", OK + b"Content-Lengths: 7\r\n" + EMPTY, 200, kept=True),
    Case(
        "a length and chunks",
        OK + CHUNKED + b"Content-Length: 3\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
        False,
        "ok",
    ),
    Case(
        "gzip and chunks",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        200,
        False,
        "ok",
    ),
    Case(
        "identity",
        OK + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
        200,
        False,
        "ok",
    ),
    Case(
        "an unknown coding",
        OK + b"Transfer-Encoding: foo\r\n" + EMPTY + b"ok",
        200,
        body="ok",
        waits=True,
    ),
    Case("a chunk's size is no number", OK + CHUNKED + b"\r\nzz\r\nok\r\n0\r\n\r\n", 200),
    Case(
        "a later chunk's size is no number", OK + CHUNKED + b"\r\n2\r\nok\r\n?\r\n", 200, body="ok"
    ),
    Case(
        "a chunk longer than its size", OK + CHUNKED + b"\r\n2\r\nokay\r\n0\r\n\r\n", 200, body="ok"
    ),
    Case("a chunk cut off", OK + CHUNKED + b"\r\n9\r\nok", 200, body="ok", waits=True),
    Case("chunks without their end", OK + CHUNKED + b"\r\n2\r\nok\r\n", 200, body="ok", waits=True),
    Case(
        "a body that says gzip and is not",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
        200,
        True,
        "ok",
    ),
    Case(
        "a body of 100,000 bytes",
        OK + b"Content-Length: 100000\r\n\r\n" + b"x" * 100_000,
        200,
        False,
        "x" * 4096,
    ),
    # Bytes after the response.
    Case("a second answer", (OK + EMPTY) + b"HTTP/1.1 500 No\r\n" + EMPTY, 200),
    Case("a second answer after chunks", OK + CHUNKED + b"\r\n0\r\n\r\n" + OK + EMPTY, 200),
    Case("nonsense after chunks", OK + CHUNKED + b"\r\n0\r\n\r\nnonsense", 200),
    Case("a byte after it", OK + EMPTY + b"x", 200),
    # Cut off.
    Case("nothing", b"", GONE, waits=True),
    Case("half a status line", b"HTTP/1.1 2", GONE, waits=True),
    Case("a status line without its end", b"HTTP/1.1 200 OK", GONE, waits=True),
    Case("a status line", OK, GONE, unlike_curl=HALF_CUT, waits=True),
    Case("half a head", OK + b"Content-Le", GONE, unlike_curl=HALF_CUT, waits=True),
    Case(
        "a head but for its last byte",
        OK + b"Content-Length: 0\r\n\r",
        GONE,
        unlike_curl=HALF_CUT,
        waits=True,
    ),
]
