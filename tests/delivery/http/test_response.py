"""The table of responses, however their bytes are split into packets."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_api.delivery.http.response import MAX_BODY_BYTES, MAX_HEAD_BYTES, ResponseReader
from tests.support.response_cases import BAD, CASES, EMPTY, GONE, OK, Case

Found = tuple[int | str, bool, str | None]  # outcome, whether the connection is kept, excerpt
SMALL = [case for case in CASES if len(case.answer) < 400]
SIZES = [
    (case, size) for case in CASES for size in (1_000_000, 1_000, 1) if case in SMALL or size > 1
]


def read(pieces: Iterable[bytes]) -> Found:
    """Read these packets, after which the connection ends."""
    reader, pieces, ended = ResponseReader(), iter(pieces), False
    for piece in pieces:
        ended = reader.feed(piece)
        if ended:
            break
    reader.end()
    left = any(pieces)  # unread bytes, so that the connection is closed
    outcome = reader.status or (BAD if reader.invalid else GONE)
    return outcome, reader.reusable and not left, reader.excerpt


def cut(answer: bytes, size: int) -> list[bytes]:
    """Packets of this many bytes."""
    return [answer[at : at + size] for at in range(0, len(answer), size)]


@pytest.mark.parametrize(("case", "size"), SIZES, ids=str)
def test_feed_reads_a_response_in_packets_of_one_size(case: Case, size: int) -> None:
    assert read(cut(case.answer, size)) == (case.outcome, case.kept, case.body)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_feed_reads_a_response_in_two_packets(case: Case) -> None:
    for at in range(len(case.answer)):
        pieces = [case.answer[:at], case.answer[at:]]
        assert read(pieces) == (case.outcome, case.kept, case.body), at


PARTS = [
    *(case.answer for case in SMALL),
    b"\r",
    b"\n",
    b"\r\n\r\n",
    b"\0",
    b" ",
    b"HTTP/1.1 100 C\r\n",
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=4), st.data())
def test_feed_does_not_depend_on_packet_boundaries(parts: list[bytes], data: st.DataObject) -> None:
    answer = b"".join(parts)
    ends = data.draw(st.lists(st.integers(0, len(answer)), max_size=5))
    edges = [0, *sorted(ends), len(answer)]
    pieces = [answer[a:b] for a, b in pairwise(edges)]
    assert read(pieces) == read([answer]) == read(cut(answer, 1))


def test_feed_ignores_the_body_of_a_second_response_after_chunks() -> None:
    first = OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    second = OK + b"Content-Length: 5\r\n\r\nother"
    assert read([first + second]) == (200, False, "ok")


@pytest.mark.parametrize("size", [MAX_HEAD_BYTES, MAX_HEAD_BYTES + 1])
def test_feed_reads_a_head_up_to_its_maximum(size: int) -> None:
    head = OK + b"X: " + b"y" * (size - len(OK + b"X: \r\n" + EMPTY)) + b"\r\n" + EMPTY
    assert len(head) == size
    for pieces in ([head], cut(head, 1)):
        assert read(pieces) == (200, size == MAX_HEAD_BYTES, None)


@pytest.mark.parametrize("size", [MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
def test_feed_reads_a_body_up_to_its_maximum(size: int) -> None:
    answer = OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size
    for pieces in ([answer], cut(answer, 1000)):
        assert read(pieces) == (200, size == MAX_BODY_BYTES, "x" * 4096)


def test_header_compares_whole_names_without_case() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 100 C\r\nRetry-After: 1\r\n\r\n" + OK)
    reader.feed(
        b"Retry-After-All: 2\r\nX: retry-after: 3\r\nRETRY-after:  4 \r\nRetry-After: 5\r\n\r\n"
    )
    assert reader.header("retry-after") == "4"
    assert reader.header("location") is None


def test_header_finds_what_was_read_of_a_too_long_head() -> None:
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 429 No\r\nRetry-After: 4\r\n" + b"X: y\r\n" * 20_000)
    assert (reader.status, reader.header("retry-after")) == (429, "4")
