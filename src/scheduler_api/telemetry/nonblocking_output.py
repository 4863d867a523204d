"""Writes to stderr and stdout that never raise and never block; what they do not take is counted.

Whatever the stream is: a file on a full disk, a terminal that is stopped, a pipe or a socket that
nobody reads, a closed descriptor. Only a disk that hangs can still hold up a write to a file.
"""

import io
import os
import select
import socket
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import RLock
from typing import Any, BinaryIO, Final, NamedTuple, TextIO, cast

STANDARD: Final = (0, 1, 2)  # descriptors of stdin, stdout, stderr


class Sink(NamedTuple):
    """How to write without waiting."""

    send: Callable[[bytes], int | None]  # → bytes taken; raises OSError, or ValueError if closed
    close: Callable[[], object] = lambda: None  # ends what was opened for it


Notice = Callable[[int], bytes]  # the line that reports how many lines were dropped

_NO_NOTICE: Final[Notice] = lambda _: b""  # noqa: E731


class Output(io.RawIOBase):
    """Passes lines on, or drops and counts them."""

    def __init__(self, sink: Sink, descriptor: int = -1, notice: Notice = _NO_NOTICE) -> None:
        """`notice`: what it returns is written before the first line that is taken again."""
        self._sink = sink
        self._descriptor = descriptor
        self.notice = notice
        self._dropped = 0  # lines since the last notice
        self._rest = b""  # of a line of which only the beginning was taken
        self._lock = RLock()
        self._writing = False

    def write(self, line: Any) -> int:
        """Pass the line on, or drop it. Raises nothing."""
        with self._lock:
            if self._writing:  # from a finalizer or a signal handler, in the middle of a write
                self._dropped += 1
                return len(line)
            self._writing = True
            try:
                self._write(bytes(line))
            finally:
                self._writing = False
        return len(line)

    def _write(self, line: bytes) -> None:
        if self._rest:
            self._rest = self._rest[self._send(self._rest) :]
        if self._rest:
            self._dropped += 1
            return
        reported = self._dropped
        data = self.notice(reported) + line if reported else line
        if taken := self._send(data):
            self._dropped -= reported
            self._rest = data[taken:]
        else:
            self._dropped += 1

    def _send(self, data: bytes) -> int:
        try:
            return self._sink.send(data) or 0
        except Exception:  # no room, nobody reads, no such descriptor: the work must go on
            return 0

    def writable(self) -> bool:
        """It is."""
        return True

    def isatty(self) -> bool:
        """Whether a person reads it."""
        return self._descriptor >= 0 and os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor. Raises: io.UnsupportedOperation, if there is none."""
        return self._descriptor if self._descriptor >= 0 else super().fileno()

    def close(self) -> None:
        """Let go of what was opened here; the descriptor itself stays open."""
        if not self.closed:
            self._sink.close()
        super().close()


def nonblocking(stream: TextIO | None, notice: Notice = _NO_NOTICE) -> TextIO:
    """A stream to the same place, of which no write raises or blocks.

    One that is so already is returned itself, with this notice.
    """
    if stream is None:  # its descriptor was closed when Python started
        return _text(Output(Sink(len), notice=notice))
    output = getattr(stream, "buffer", None)
    if isinstance(output, Output):
        output.notice = notice
        return stream
    with suppress(OSError, ValueError):
        stream.flush()
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file of the system, or closed
        return _text(Output(Sink(partial(_write_and_flush, stream)), notice=notice))
    return _text(Output(_sink(descriptor), descriptor, notice))


def _text(output: Output) -> TextIO:
    # Not write_through: print would write its line and the line's end apart.
    return io.TextIOWrapper(
        cast("BinaryIO", output), "utf-8", errors="backslashreplace", line_buffering=True
    )


def make_standard_streams_nonblocking(notice: Notice) -> None:
    """Guard sys.stdout and sys.stderr, of which the latter reports what was dropped."""
    for descriptor in STANDARD:
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file or socket gets this number, and whoever prints writes into it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = nonblocking(sys.stdout)
    sys.stderr = nonblocking(sys.stderr, notice)


def _write_and_flush(stream: TextIO, data: bytes) -> int:
    stream.write(data.decode(errors="replace"))
    stream.flush()
    return len(data)


def _sink(descriptor: int) -> Sink:
    """What suits the kind of file."""
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:  # closed since it was opened
        return Sink(partial(os.write, descriptor))
    if stat.S_ISSOCK(kind):
        # O_NONBLOCK would also be of other processes that have the socket; this is of one call.
        own = socket.socket(fileno=os.dup(descriptor))
        return Sink(lambda data: own.send(data, socket.MSG_DONTWAIT), own.close)
    if stat.S_ISFIFO(kind) or os.isatty(descriptor):
        return _reopened(descriptor) or Sink(partial(_write_while_ready, descriptor))
    return Sink(partial(os.write, descriptor))


def _reopened(descriptor: int) -> Sink | None:
    """The same pipe or terminal, opened anew: its O_NONBLOCK is then of this process alone."""
    for path in (f"/proc/self/fd/{descriptor}", _terminal(descriptor)):
        try:
            own = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:  # no such place here, or of another user
            continue
        return Sink(partial(os.write, own), partial(os.close, own))
    return None


def _terminal(descriptor: int) -> str:
    try:
        return os.ttyname(descriptor)
    except OSError:  # a pipe, or a terminal of another container
        return ""


def _write_while_ready(descriptor: int, data: bytes) -> int:
    """Write in pieces so small that a pipe that is ready takes each without blocking."""
    taken = 0
    # select and not poll, which does not work with terminals on macOS.
    while taken < len(data) and select.select([], [descriptor], [], 0)[1]:
        taken += os.write(descriptor, data[taken : taken + select.PIPE_BUF])
    return taken
