"""The answer to one request, read from bytes: the status line decides, whatever comes after it.

A receiver that answered 200 has the message, so nothing after its status line makes the attempt
fail: odd header fields, contradictory lengths and broken bodies only end the connection. The result
does not depend on how the bytes are cut into packets.

The head is read here and not by aiohttp or httptools: both lose a status when something after it
offends them, and httptools drops the body of an answer that offers an upgrade. Chunked bodies are
httptools' to decode.
"""

import re
from typing import Final

import httptools

from scheduler_api.domain.attempt import EXCERPT_BYTES

HEAD_BYTES: Final = 64 * 1024  # of a head, with the 1xx heads before it
BODY_BYTES: Final = 64 * 1024  # read of a body; then the connection is closed

# The versions that curl accepts.
_STATUS_LINE: Final = re.compile(
    rb"HTTP/(1\.[01]|2(?:\.0)?) [ \t]*([1-9][0-9]{2})(?![0-9])[^\n]*\n", re.IGNORECASE
)
_BEGIN: Final = b"http/"
_find_end: Final = re.compile(rb"\n\r?\n").search
_is_length: Final = re.compile(rb"[0-9]{1,18}").fullmatch
_CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class ResponseReader:
    """Takes the bytes of one answer as they come."""

    __slots__ = (
        "_chunks",
        "_excerpt",
        "_head",
        "_keep_alive",
        "_left",
        "_parser",
        "_size",
        "_start",
        "complete",
        "invalid",
        "reusable",
        "status",
    )

    def __init__(self) -> None:
        self.status: int | None = None  # once the whole head, or too much of it, has come
        self.invalid = False  # whether this is no HTTP
        self.complete = False  # whether its end has come
        self.reusable = False  # whether nothing came after that, and the connection lives on
        self._head = bytearray()  # with the 1xx heads before it
        self._start = 0  # where in `_head` the last head begins
        self._keep_alive = False
        self._left: int | None = None  # bytes of the body to come; None: until the connection ends
        self._chunks: _Chunks | None = None
        self._parser: httptools.HttpResponseParser | None = None  # of chunks
        self._size = 0  # bytes of the body that have come
        self._excerpt = b""

    @property
    def started(self) -> bool:
        """Whether any byte has come."""
        return bool(self._head)

    @property
    def excerpt(self) -> str | None:
        """The beginning of the body, as text."""
        return self._excerpt.decode(errors="replace") if self._excerpt else None

    def header(self, name: str) -> str | None:
        """The first value of that field, spelt in lower case; None if the head has none."""
        values = _values(self._head, self._head.lower(), b"\n%b" % name.encode())
        return values[0].decode(errors="replace") if values else None

    def feed(self, data: bytes) -> bool:
        """Take what came → whether nothing more is to be read."""
        if self.status is not None:
            return self._take(data)
        head = self._head
        looked = max(self._start, len(head) - 2)
        head += data
        while end := _find_end(head, looked, HEAD_BYTES):
            line = _STATUS_LINE.match(head, self._start)
            if line is None:
                return self._refuse()
            status = int(line[2])
            if status >= 200 or status == 101:
                return self._begin(status, line[1], end.end())
            looked = self._start = end.end()
        return self._judge_unfinished()

    def end(self) -> None:
        """Nothing more comes."""
        if self.status is None and not self._may_begin():
            self.invalid = True

    def _judge_unfinished(self) -> bool:
        """Refuse what is no HTTP before its head has ended, which may be never."""
        head, full = self._head, len(self._head) > HEAD_BYTES
        if head.find(b"\n", self._start, HEAD_BYTES) < 0:
            return self._refuse() if full or not self._may_begin() else False
        line = _STATUS_LINE.match(head, self._start, HEAD_BYTES)
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

    def _begin(self, status: int, version: bytes, end: int) -> bool:
        """Find out where the body ends, and whether its sender would say so too."""
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
        return self._take(body)

    def _frame(self, head: bytearray, lower: bytearray) -> None:
        """Where the body ends. What two readers could read differently ends the connection."""
        name = b"\ntransfer-encoding"
        coding = _joined(head, lower, name) if name in lower else b""
        lengths = _values(head, lower, b"\ncontent-length")
        if self.status in (101, 204, 304):
            self._left = 0
            self._keep_alive &= self.status != 101 and not coding and lengths in ([], [b"0"])
        elif coding.endswith(b"chunked"):
            self._chunks = _Chunks()
            self._parser = httptools.HttpResponseParser(self._chunks)
            self._parser.feed_data(_CHUNKED_HEAD)
            self._keep_alive &= coding == b"chunked" and not lengths
        elif coding in (b"", b"identity") and lengths:
            given = b",".join(lengths).split(b",")
            known = [int(length) for length in map(bytes.strip, given) if _is_length(length)]
            # The least, so that a mistake does not hold the slot until the receiver leaves.
            self._left = min(known, default=0)
            self._keep_alive &= not coding and len(given) == len(known) == 1

    def _take(self, data: bytes) -> bool:
        self._size += len(data)
        if self._chunks is not None and self._parser is not None:
            data, ended, clean = self._chunks.decode(self._parser, data)
        elif self._left is not None:
            ended, clean = self._size >= self._left, self._size == self._left
            data = data[: len(data) - max(0, self._size - self._left)]
        else:
            ended, clean = False, False
        if len(self._excerpt) < EXCERPT_BYTES:
            self._excerpt += data[: EXCERPT_BYTES - len(self._excerpt)]
        full = self._size > BODY_BYTES
        if ended and not full:
            self.complete, self.reusable = True, clean and self._keep_alive
        return ended or full


class _Chunks:
    """What httptools decodes of a chunked body.

    It does not know the parser, which knows it: a circle would wait for the garbage collector.
    """

    def __init__(self) -> None:
        self._data = b""
        self._ended = False

    def decode(self, parser: httptools.HttpResponseParser, data: bytes) -> tuple[bytes, bool, bool]:
        """What was in it, whether that was the end, and whether nothing came after that."""
        self._data, clean = b"", False
        try:
            # The last byte alone, as httptools does not say where the body has ended.
            parser.feed_data(data[:-1])
            if not self._ended:
                parser.feed_data(data[-1:])
                clean = True
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            return self._data, True, False
        return self._data, self._ended, clean

    def on_body(self, data: bytes) -> None:
        """A part of the body; not of an answer after it, which nobody asked for."""
        if not self._ended:
            self._data += data

    def on_message_complete(self) -> None:
        """The body has ended."""
        self._ended = True


def _is_plain(head: bytearray) -> bool:
    """Whether no two readers see other lines in it: no bare CR or LF, no folded line, no NUL."""
    lines = head.count(b"\r\n")
    return (
        head.count(b"\n") == lines
        and head.count(b"\r") == lines
        and b"\n " not in head
        and b"\n\t" not in head
        and b"\0" not in head
    )


def _joined(head: bytearray, lower: bytearray, name: bytes) -> bytes:
    """The values of a field that is a list, in lower case."""
    return b",".join(_values(head, lower, name)).lower()


def _values(head: bytearray, lower: bytearray, name: bytes) -> list[bytes]:
    """Of the fields called so; `name` is in lower case, after the line feed before it."""
    values = []
    at = lower.find(name)
    while at >= 0:
        end = lower.find(b"\n", at + 1)
        field, _, value = bytes(head[at:end]).partition(b":")
        if len(field.rstrip()) == len(name):
            values.append(value.strip())
        at = lower.find(name, end)
    return values
