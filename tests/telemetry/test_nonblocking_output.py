"""Writes to all kinds of stdout and stderr: none raises, none blocks, dropped lines are counted."""

import asyncio
import fcntl
import io
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from scheduler_api.telemetry.logging import at_end_of_turn, configure_logging
from scheduler_api.telemetry.nonblocking_output import Output, Sink, nonblocking
from tests.support.stderr_streams import DEAD, READABLE, Stream, opened

MANY = 3_000  # lines: more than any of the streams here buffers


@contextmanager
def logging_to(descriptor: int) -> Iterator[Any]:
    """A logger that writes to this descriptor, which stays open."""
    with open(descriptor, "w", encoding="utf-8", closefd=False) as stream:
        configure_logging("INFO", "json", stream, cache=False)
        yield structlog.get_logger()


def events(read: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in read.splitlines()]


@pytest.mark.parametrize("kind", [*READABLE, *DEAD])
def test_log_call_neither_raises_nor_blocks(kind: str, tmp_path: Path) -> None:
    """Else the process would hang or end here."""
    with opened(kind, tmp_path) as stream, logging_to(stream.descriptor) as log:
        for number in range(MANY):
            log.info("event", number=number, text="x" * 500)
        logging.getLogger("library").warning("of another")


@pytest.mark.parametrize("kind", READABLE)
def test_write_to_a_stream_that_is_read_again_reports_the_dropped_lines(
    kind: str, tmp_path: Path
) -> None:
    with opened(kind, tmp_path) as stream, logging_to(stream.descriptor) as log:
        for number in range(MANY):
            log.info("event", number=number, text="x" * (100 + number % 900))
        read, lines, deadline = stream.read(), MANY, time.monotonic() + 10
        while b"read_again" not in read:  # TCP needs a moment to move its buffer
            assert time.monotonic() < deadline
            log.info("read_again")
            lines += 1
            read += stream.read()
    found = events(read)
    dropped = sum(event["count"] for event in found if event["event"] == "log_lines_dropped")
    arrived = [
        event.get("number", MANY) for event in found if event["event"] != "log_lines_dropped"
    ]
    assert arrived == sorted(arrived)
    assert len(arrived) < MANY
    assert len(arrived) + dropped == lines


def test_write_to_a_pipe_that_cannot_be_reopened_does_not_block(tmp_path: Path) -> None:
    """A pipe of another user cannot be reopened."""
    with opened("pipe found without a reader", tmp_path) as found:
        with logging_to(found.descriptor) as log:
            log.info("nobody_reads")
            stream = Stream(found.descriptor, os.open(tmp_path / "fifo", os.O_RDONLY))
            for number in range(100):
                log.info("event", number=number, text="x" * 10_000)
            read = stream.read()
            log.info("read_again")
            read += stream.read()
        os.close(stream.reader)
    found_events = events(read)
    assert found_events[0] == found_events[0] | {"event": "log_lines_dropped", "count": 1}
    assert found_events[-1]["event"] == "read_again"


@pytest.mark.parametrize("kind", READABLE)
def test_nonblocking_does_not_change_the_flags_of_a_shared_descriptor(
    kind: str, tmp_path: Path
) -> None:
    """A shell that reads from the same terminal would fail if it became non-blocking."""
    with opened(kind, tmp_path) as stream:
        before = fcntl.fcntl(stream.descriptor, fcntl.F_GETFL)
        with logging_to(stream.descriptor) as log:
            log.info("event")
        assert fcntl.fcntl(stream.descriptor, fcntl.F_GETFL) == before


def test_write_after_a_full_disk_completes_the_partial_line() -> None:
    """The rest of a line that was cut off is written when there is room."""
    room = 250
    written = b""

    def send(data: bytes) -> int:
        nonlocal room, written
        taken, room = data[:room], max(0, room - len(data))
        if not taken:
            raise OSError(28, "No space left on device")
        written += taken
        return len(taken)

    output = Output(Sink(send), notice=lambda count: b"%d dropped\n" % count)
    for letter in b"abcdef":
        output.write(bytes([letter]) * 99 + b"\n")
    room = 10_000
    output.write(b"room again\n")
    wanted = (b"a" * 99, b"b" * 99, b"c" * 99, b"3 dropped", b"room again")
    assert tuple(written.splitlines()) == wanted


def test_write_to_a_closed_descriptor_does_not_raise() -> None:
    reading, writing = os.pipe()
    with logging_to(writing) as log:
        os.close(reading)
        os.close(writing)
        log.info("nobody_reads")
        with open(os.devnull, "w", encoding="utf-8") as closed:
            pass
        nonblocking(closed).write("closed\n")
        with logging_to(os.open(os.devnull, os.O_WRONLY)) as other:
            other.info("nobody_reads")


def test_nonblocking_accepts_a_closed_stream() -> None:
    reading, writing = os.pipe()
    with open(writing, "w", encoding="utf-8", closefd=False) as stream:
        os.close(reading)
        os.close(writing)
        print("nobody reads", file=nonblocking(stream))


def test_write_during_a_write_is_dropped_and_counted() -> None:
    """A finalizer may log at any moment: it must not deadlock, or break the line."""
    written: list[bytes] = []

    def send(data: bytes) -> int:
        if not written:
            output.write(b"inner\n")
        written.append(data)
        return len(data)

    output = Output(Sink(send), notice=lambda count: b"%d dropped\n" % count)
    output.write(b"outer\n")
    output.write(b"next\n")
    assert written == [b"outer\n", b"1 dropped\nnext\n"]


@pytest.fixture
def writes() -> list[bytes]:
    """What the sink of `lines` was given, a call each."""
    return []


@pytest.fixture
def lines(writes: list[bytes]) -> Output:
    def send(data: bytes) -> int:
        writes.append(data)
        return len(data)

    output = Output(Sink(send))
    output.call_later = at_end_of_turn
    return output


async def test_lines_of_one_turn_are_written_together(lines: Output, writes: list[bytes]) -> None:
    for line in (b"one", b"two"):
        lines.write_later(line)
    assert writes == []
    await asyncio.sleep(0)
    assert writes == [b"one\ntwo\n"]
    lines.write_later(b"three")
    await asyncio.sleep(0)
    assert writes == [b"one\ntwo\n", b"three\n"]


async def test_lines_of_one_turn_are_written_in_parts_that_a_pipe_takes_whole(
    lines: Output, writes: list[bytes]
) -> None:
    sizes = [*range(1, select.PIPE_BUF, 97), select.PIPE_BUF - 1, 3 * select.PIPE_BUF, 1]
    for size in sizes:
        lines.write_later(b"x" * size)
    await asyncio.sleep(0)
    assert [len(line) for line in b"".join(writes).splitlines()] == sizes
    assert [len(data) for data in writes if len(data) > select.PIPE_BUF] == [
        3 * select.PIPE_BUF + 1
    ], "a line that is longer than a pipe takes is written alone"
    assert max(len(data) for data in writes if data.count(b"\n") > 1) > select.PIPE_BUF // 2


async def test_write_keeps_the_order_of_lines(lines: Output, writes: list[bytes]) -> None:
    lines.write_later(b"first")
    lines.write(b"second\n")
    await asyncio.sleep(0)
    assert writes == [b"first\n", b"second\n"]


@pytest.mark.parametrize("end", [Output.flush, Output.close])
async def test_flush_and_close_write_the_lines_of_this_turn(
    lines: Output, writes: list[bytes], end: Callable[[Output], None]
) -> None:
    lines.write_later(b"last")
    end(lines)
    assert writes == [b"last\n"]


async def test_line_of_a_thread_is_written_at_once_with_those_before(
    lines: Output, writes: list[bytes]
) -> None:
    await asyncio.to_thread(lines.write_later, b"no loop here")
    assert writes == [b"no loop here\n"]
    lines.write_later(b"one")
    await asyncio.to_thread(lines.write_later, b"two")
    await asyncio.sleep(0)
    assert b"".join(writes[1:]) == b"one\ntwo\n"


async def test_lines_of_one_turn_that_cannot_be_written_are_counted() -> None:
    room, written = 0, list[bytes]()

    def send(data: bytes) -> int:
        written.append(data[:room])
        return len(data[:room])

    output = Output(Sink(send), notice=lambda count: b"%d dropped\n" % count)
    output.call_later = at_end_of_turn
    for line in (b"one", b"two", b"three"):
        output.write_later(line)
    await asyncio.sleep(0)
    room = 100
    output.write(b"room again\n")
    assert b"".join(written) == b"3 dropped\nroom again\n"


LAST_LINES = """
import asyncio, os, structlog
from scheduler_api.telemetry.logging import configure_logging, make_streams_nonblocking
make_streams_nonblocking()
configure_logging("INFO", "json")
async def end():
    structlog.get_logger().info("before")
    {last}
asyncio.run(end())
"""


@pytest.mark.parametrize(
    ("last", "found"),
    [
        ("pass", ["before"]),
        ("raise SystemExit(0)", ["before"]),
        ("asyncio.get_running_loop().stop(); await asyncio.sleep(9)", ["before"]),
        ("structlog.get_logger().warning('last'); os._exit(0)", ["before", "last"]),
    ],
)
def test_process_that_ends_writes_its_last_lines(last: str, found: list[str]) -> None:
    command = (sys.executable, "-c", LAST_LINES.format(last=last))
    done = subprocess.run(command, check=False, timeout=30, capture_output=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith(b"{")]
    assert [json.loads(line)["event"] for line in lines] == found


def test_nonblocking_returns_a_nonblocking_stream_as_it_is(tmp_path: Path) -> None:
    with opened("terminal", tmp_path) as stream:
        with open(stream.descriptor, "w", encoding="utf-8", closefd=False) as plain:
            first = nonblocking(plain)
            assert nonblocking(first) is first
            assert first.fileno() == stream.descriptor
            assert first.isatty()
            print("á \ud800", file=first)
        assert stream.read() == "á \\ud800\n".encode()


def test_nonblocking_replaces_the_notice_of_a_nonblocking_stream(tmp_path: Path) -> None:
    with opened("pipe", tmp_path) as stream:
        with open(stream.descriptor, "w", encoding="utf-8", closefd=False) as plain:
            first = nonblocking(plain)
        for _ in range(100):
            print("x" * 1000, file=nonblocking(first, lambda count: b"%d dropped\n" % count))
        read = stream.read()
        print("read again", file=first)
        read += stream.read()
    lines = read.decode().splitlines()
    assert lines[-1] == "read again"
    assert lines[-2] == f"{100 - len(lines) + 2} dropped"


def test_nonblocking_writes_to_a_stream_in_memory() -> None:
    memory = io.StringIO()
    stream = nonblocking(memory)
    print("one", file=stream)
    assert memory.getvalue() == "one\n"
    assert not stream.isatty()
    with pytest.raises(io.UnsupportedOperation):
        stream.fileno()


def test_second_close_does_not_close_a_reused_descriptor() -> None:
    closed = []
    output = Output(Sink(len, lambda: closed.append(1)))
    output.close()
    output.close()
    assert closed == [1]


def test_nonblocking_accepts_none() -> None:
    """sys.stderr is None in a process that was started without one."""
    print("gone", file=nonblocking(None))


GUARD = """
import json, os, sys
from scheduler_api.telemetry.logging import configure_logging, make_streams_nonblocking
make_streams_nonblocking()
kinds = [os.fstat(number).st_rdev == os.stat(os.devnull).st_rdev for number in (0, 1, 2)]
inherited = [os.get_inheritable(number) for number in (0, 1, 2)]
print("out", flush=True)
print("err", file=sys.stderr)
configure_logging("INFO", "json")
import warnings
warnings.warn("logged")
with open(sys.argv[1], "w") as output:
    json.dump([kinds, inherited], output)
"""


@pytest.mark.parametrize("closed", ["<&- >&- 2>&-", "2>&-", ">&-", "> /dev/full 2> /dev/full"])
def test_process_with_closed_or_full_standard_streams_runs(closed: str, tmp_path: Path) -> None:
    """Closed descriptors become /dev/null, so that no later file or socket gets their numbers."""
    shell = f'exec "$@" {closed}'
    command = ("sh", "-c", shell, "-", sys.executable, "-c", GUARD, str(tmp_path / "output"))
    done = subprocess.run(command, check=False, timeout=30, stdin=subprocess.PIPE)
    assert done.returncode == 0
    kinds, inherited = json.loads((tmp_path / "output").read_text())
    assert kinds[1:] == [">&-" in closed.replace("2>&-", ""), "2>&-" in closed]
    assert all(inherited)
