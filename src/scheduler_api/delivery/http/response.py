"""Reads the response to one request from bytes: its status line alone decides the result.

A receiver that responded with 200 has the message. So nothing after the status line fails the
attempt: invalid headers, contradictory lengths and broken bodies only close the connection. The
result does not depend on how the bytes are split into packets.

The head is not parsed by aiohttp or httptools: both lose the status if something after it is
invalid (aio-libs/aiohttp#5269), and httptools drops the body of a response that offers an upgrade
(as nodejs/http-parser#363). A parser that reports the status before it reads the headers, and
leaves upgrades to its caller, could replace this code. httptools decodes chunked bodies.
"""

import re
from typing import Final

import httptools

from scheduler_api.domain.attempt import EXCERPT_BYTES

MAX_HEAD_BYTES: Final = 64 * 1024  # of a head, including the 1xx heads before it
MAX_BODY_BYTES: Final = 64 * 1024  # read of a body; then the connection is closed

# The HTTP versions that curl accepts.
_STATUS_LINE: Final = re.compile(
    rb"HTTP/(1\.[01]|2(?:\.0)?) [ \t]*([1-9][0-9]{2})(?![0-9])[^\n]*\n", re.IGNORECASE
)
_BEGIN: Final = b"http/"
_find_end: Final = re.compile(rb"\n\r?\n").search
_is_length: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class ResponseReader:
    """Reads one response as its bytes arrive."""

    __slots__ = (
        "_chunks",
        "_excerpt",
        "_head",
        "_keep_alive",
        "_length",
        "_parser",
        "_size",
        "_start",
        "complete",
        "invalid",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status: int | None = None  # set when the head is complete, or too long
        self.invalid = False  # whether this is not HTTP
        self.complete = False  # whether the end has arrived
        self.reusable = False  # whether the connection can carry another request
        self._head = bytearray()  # including the 1xx heads before it
        self._start = 0  # where the last head begins in `_head`
        self._keep_alive = False
        self._length: int | None = None  # of the body, bytes; None: until the connection ends
        self._chunks: _Chunks | None = None
        self._parser: httptools.HttpResponseParser | None = None  # of a chunked body
        self._size = 0  # bytes of the body that have arrived
        self._excerpt = b""

    @property
    def started(self) -> bool:
        """Whether any byte has arrived."""
        return bool(self._head)

    @property
    def excerpt(self) -> str | None:
        """The first EXCERPT_BYTES of the body, as text; None if there are none."""
        return self._excerpt.decode(errors="replace") if self._excerpt else None

    def header(self, name: str) -> str | None:
        """The first value of a header; `name` in lower case. None if the head has none."""
        values = _values(self._head, self._head.lower(), b"\n%b" % name.encode())
        return values[0].decode(errors="replace") if values else None

    def feed(self, data: bytes) -> bool:
        """Read bytes → whether the response has ended."""
        if self.status is not None:
            return self._feed_body(data)
        head = self._head
        searched = max(self._start, len(head) - 2)
        head += data
        while end := _find_end(head, searched, MAX_HEAD_BYTES):
            line = _STATUS_LINE.match(head, self._start)
            if line is None:
                return self._refuse()
            status = int(line[2])
            if status >= 200 or status == 101:
                return self._begin_body(status, line[1], end.end())
            searched = self._start = end.end()
        return self._check_unfinished()

    def end(self) -> None:
        """The connection has ended."""
        if self.status is None and not self._may_begin():
            self.invalid = True

    def _check_unfinished(self) -> bool:
        """Refuse what is not HTTP, or too long, before the head has ended."""
        head, full = self._head, len(self._head) > MAX_HEAD_BYTES
        if head.find(b"\n", self._start, MAX_HEAD_BYTES) < 0:
            return self._refuse() if full or not self._may_begin() else False
        line = _STATUS_LINE.match(head, self._start, MAX_HEAD_BYTES)
        if line is None or (full and 101 != int(line[2]) < 200):
            return self._refuse()
        if full:
            self.status = int(line[2])
        return full

    def _may_begin(self) -> bool:
        begun = bytes(self._head[self._start : self._start + len(_BEGIN)]).lower()
        return _BEGIN.startswith(begun)

    def _refuse(self) -> bool:
        self.invalid = True
        return True

    def _begin_body(self, status: int, version: bytes, end: int) -> bool:
        """Decide where the body ends, and whether that is certain enough to keep the connection."""
        head = self._head
        body = bytes(memoryview(head)[end:])
        del head[end:]
        if self._start:
            del head[: self._start]
        self.status = status
        lower = head.lower()
        options = _joined(head, lower, b"\nconnection") if b"\nconnection" in lower else b""
        self._keep_alive = (
            (version == b"1.1" or (version == b"1.0" and b"keep-alive" in options))
            and b"close" not in options
            and _is_plain(head)
        )
        self._frame(head, lower)
        return self._feed_body(body)

    def _frame(self, head: bytearray, lower: bytearray) -> None:
        """Set where the body ends; if another reader could differ, do not keep the connection."""
        name = b"\ntransfer-encoding"
        coding = _joined(head, lower, name) if name in lower else b""
        lengths = _values(head, lower, b"\ncontent-length")
        if self.status in (101, 204, 304):
            self._length = 0
            self._keep_alive &= self.status != 101 and not coding and lengths in ([], [b"0"])
        elif coding.endswith(b"chunked"):
            self._chunks = _Chunks()
            self._parser = httptools.HttpResponseParser(self._chunks)
            self._parser.feed_data(_CHUNKED_HEAD)
            self._keep_alive &= coding == b"chunked" and not lengths
        elif coding in (b"", b"identity") and lengths:
            given = b",".join(lengths).split(b",")
            known = [int(length) for length in map(bytes.strip, given) if _is_length(length)]
            # The smallest: a wrong larger one would hold the slot until the receiver disconnects.
            self._length = min(known, default=0)
            self._keep_alive &= not coding and len(given) == len(known) == 1

    def _feed_body(self, data: bytes) -> bool:
        self._size += len(data)
        if self._chunks is not None and self._parser is not None:
            data, ended, clean = self._chunks.decode(self._parser, data)
        elif self._length is not None:
            ended, clean = self._size >= self._length, self._size == self._length
            data = data[: len(data) - max(0, self._size - self._length)]
        else:
            ended, clean = False, False
        if len(self._excerpt) < EXCERPT_BYTES:
            self._excerpt += data[: EXCERPT_BYTES - len(self._excerpt)]
        full = self._size > MAX_BODY_BYTES
        if ended and not full:
            self.complete, self.reusable = True, clean and self._keep_alive
        return ended or full


class _Chunks:
    """The callbacks of httptools for a chunked body.

    It does not refer to the parser, which refers to it: a cycle would wait for the garbage
    collector.
    """

    def __init__(self) -> None:
        self._data = b""
        self._ended = False

    def decode(self, parser: httptools.HttpResponseParser, data: bytes) -> tuple[bytes, bool, bool]:
        """Decode bytes → the body in them, whether it has ended, whether nothing followed it."""
        self._data, clean = b"", False
        try:
            # The last byte separately: httptools does not report where the body has ended, and we
            # know of no issue about it. One call is enough when it does.
            parser.feed_data(data[:-1])
            if not self._ended:
                parser.feed_data(data[-1:])
                clean = True
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._data, True, False
        return self._data, self._ended, clean

    def on_body(self, data: bytes) -> None:
        """A part of the body; an unrequested response after it is ignored."""
        if not self._ended:
            self._data += data

    def on_message_complete(self) -> None:
        """The body has ended."""
        self._ended = True


def _is_plain(head: bytearray) -> bool:
    """Whether all readers see the same lines: no bare CR or LF, no folded line, no NUL."""
    lines = head.count(b"\r\n")
    return (
        head.count(b"\n") == lines
        and head.count(b"\r") == lines
        and b"\n " not in head
        and b"\n\t" not in head
        and b"\0" not in head
    )


def _joined(head: bytearray, lower: bytearray, name: bytes) -> bytes:
    """All values of a list header, in lower case."""
    return b",".join(_values(head, lower, name)).lower()


def _values(head: bytearray, lower: bytearray, name: bytes) -> list[bytes]:
    """The values of all headers of this name; `name` is a line feed and the name in lower case."""
    values = []
    at = lower.find(name)
    while at >= 0:
        end = lower.find(b"\n", at + 1)
        field, _, value = bytes(head[at:end]).partition(b":")
        if len(field.rstrip()) == len(name):
            values.append(value.strip())
        at = lower.find(name, end)
    return values
