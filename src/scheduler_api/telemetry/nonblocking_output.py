"""Output streams whose writes never raise and never block; lines that are dropped are counted.

This holds for a file on a full disk, a stopped terminal, a pipe or socket that nobody reads, and a
closed descriptor. Only a disk that hangs can still block a write to a file.
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

STANDARD_DESCRIPTORS: Final = (0, 1, 2)  # stdin, stdout, stderr


class Sink(NamedTuple):
    """A way to write without blocking."""

    send: Callable[[bytes], int | None]  # → bytes written; raises OSError, or ValueError if closed
    close: Callable[[], object] = lambda: None  # closes what was opened for it


Notice = Callable[[int], bytes]  # number of dropped lines → the line that reports it

CallLater = Callable[[Callable[[], None]], object]  # calls it now or soon

_NO_NOTICE: Final[Notice] = lambda _: b""  # noqa: E731


class Output(io.RawIOBase):
    """Writes lines to a sink, or drops and counts them. No method raises."""

    def __init__(self, sink: Sink, descriptor: int = -1, notice: Notice = _NO_NOTICE) -> None:
        """`notice`: its line is written before the first line that can be written again."""
        self._sink = sink
        self._descriptor = descriptor
        self.notice = notice
        self.call_later: CallLater = lambda flush: flush()
        self._dropped = 0  # lines since the last notice
        self._rest = b""  # the rest of lines that were written in part
        self._later: list[bytes] = []  # lines of write_later
        self._later_size = 0  # bytes
        self._lock = RLock()
        self._writing = False

    def write(self, data: Any) -> int:
        """Write the lines of write_later and then these, or drop them."""
        with self._lock:
            self.flush()
            self._write(bytes(data))
        return len(data)

    def write_later(self, line: bytes) -> None:
        """Write the line, given without its end, when `call_later` calls; together with the others
        that then wait, as many at a time as a pipe takes whole."""
        with self._lock:
            if self._later_size + len(line) >= select.PIPE_BUF:
                self.flush()
            self._later.append(line)
            self._later_size += len(line) + 1
            if len(self._later) > 1:
                return
        self.call_later(self.flush)

    def flush(self) -> None:
        """Write the lines of write_later."""
        with self._lock:
            if self._later:
                lines, self._later, self._later_size = self._later, [], 0
                self._write(b"\n".join(lines) + b"\n")

    def _write(self, data: bytes) -> None:
        lines = data.count(b"\n") or 1
        if self._writing:  # called by a finalizer or signal handler during a write
            self._dropped += lines
            return
        self._writing = True
        try:
            if self._rest:
                self._rest = self._rest[self._send(self._rest) :]
            reported = self._dropped
            if reported:
                data = self.notice(reported) + data
            if not self._rest and (taken := self._send(data)):
                self._dropped -= reported
                self._rest = data[taken:]
            else:
                self._dropped += lines
        finally:
            self._writing = False

    def _send(self, data: bytes) -> int:
        try:
            return self._sink.send(data) or 0
        except Exception:  # disk full, no reader, closed: the caller must continue
            return 0

    def writable(self) -> bool:
        """True."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._descriptor >= 0 and os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The descriptor. Raises: io.UnsupportedOperation, if there is none."""
        return self._descriptor if self._descriptor >= 0 else super().fileno()

    def close(self) -> None:
        """Close what was opened here; the descriptor itself stays open."""
        if not self.closed:
            self.flush()
            self._sink.close()
        super().close()


def nonblocking(stream: TextIO | None, notice: Notice = _NO_NOTICE) -> TextIO:
    """A stream with the same target whose writes never raise or block.

    A stream that is one already is returned, with this notice.
    """
    if stream is None:  # the descriptor was closed when Python started
        return _text(Output(Sink(len), notice=notice))
    output = getattr(stream, "buffer", None)
    if isinstance(output, Output):
        output.notice = notice
        return stream
    with suppress(OSError, ValueError):
        stream.flush()
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not a file of the operating system, or closed
        return _text(Output(Sink(partial(_write_and_flush, stream)), notice=notice))
    return _text(Output(_sink(descriptor), descriptor, notice))


def _text(output: Output) -> TextIO:
    # Not write_through: print would write a line and its end separately.
    return io.TextIOWrapper(
        cast("BinaryIO", output), "utf-8", errors="backslashreplace", line_buffering=True
    )


def make_standard_streams_nonblocking(notice: Notice) -> None:
    """Replace sys.stdout and sys.stderr; stderr reports its dropped lines by `notice`."""
    for descriptor in STANDARD_DESCRIPTORS:
        try:
            os.fstat(descriptor)
        except OSError:
            # Else the next file or socket gets this number, and prints are written into it.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdout = nonblocking(sys.stdout)
    sys.stderr = nonblocking(sys.stderr, notice)


def _write_and_flush(stream: TextIO, data: bytes) -> int:
    stream.write(data.decode(errors="replace"))
    stream.flush()
    return len(data)


def _sink(descriptor: int) -> Sink:
    """The sink for this kind of file."""
    try:
        kind = os.fstat(descriptor).st_mode
    except OSError:  # closed since it was opened
        return Sink(partial(os.write, descriptor))
    if stat.S_ISSOCK(kind):
        # Not O_NONBLOCK: it would also apply to other processes that have the socket.
        own = socket.socket(fileno=os.dup(descriptor))
        return Sink(lambda data: own.send(data, socket.MSG_DONTWAIT), own.close)
    if stat.S_ISFIFO(kind) or os.isatty(descriptor):
        return _reopened(descriptor) or Sink(partial(_write_while_ready, descriptor))
    return Sink(partial(os.write, descriptor))


def _reopened(descriptor: int) -> Sink | None:
    """The same pipe or terminal, opened again, so that O_NONBLOCK applies to this process only."""
    for path in (f"/proc/self/fd/{descriptor}", _terminal(descriptor)):
        try:
            own = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:  # no such path here, or it belongs to another user
            continue
        return Sink(partial(os.write, own), partial(os.close, own))
    return None


def _terminal(descriptor: int) -> str:
    try:
        return os.ttyname(descriptor)
    except OSError:  # a pipe, or a terminal of another container
        return ""


def _write_while_ready(descriptor: int, data: bytes) -> int:
    """Write in pieces of PIPE_BUF: a pipe that is ready takes each without blocking."""
    taken = 0
    # Not poll: it does not work with terminals on macOS.
    while taken < len(data) and select.select([], [descriptor], [], 0)[1]:
        taken += os.write(descriptor, data[taken : taken + select.PIPE_BUF])
    return taken
