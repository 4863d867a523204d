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

_NO_NOTICE: Final[Notice] = lambda _: b""  # noqa: E731


class Output(io.RawIOBase):
    """Writes lines to a sink, or drops and counts them."""

    def __init__(self, sink: Sink, descriptor: int = -1, notice: Notice = _NO_NOTICE) -> None:
        """`notice`: its line is written before the first line that can be written again."""
        self._sink = sink
        self._descriptor = descriptor
        self.notice = notice
        self._dropped = 0  # lines since the last notice
        self._rest = b""  # the rest of a line that was written in part
        self._lock = RLock()
        self._writing = False

    def write(self, line: Any) -> int:
        """Write the line, or drop it. Never raises."""
        with self._lock:
            if self._writing:  # called by a finalizer or signal handler during a write
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
