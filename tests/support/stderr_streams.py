"""What stderr of a service may be: streams that are full, closed, stopped or never read."""

import os
import pty
import socket
import termios
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

FILLER: Final = b"." * 1023 + b"\n"


class Stream(NamedTuple):
    """The service has one end, the test the other."""

    descriptor: int  # the service writes here
    reader: int = -1  # the test reads here; -1: nobody can

    def read(self) -> bytes:
        """Read everything that is in it."""
        os.set_blocking(self.reader, False)
        found = b""
        with suppress(BlockingIOError):
            while piece := os.read(self.reader, 1 << 20):
                found += piece
        return found

    def fill(self) -> None:
        """Write until it is full."""
        os.set_blocking(self.descriptor, False)
        with suppress(OSError):
            while True:
                os.write(self.descriptor, FILLER)
        with suppress(OSError):  # what still fits, less than a line
            while True:
                os.write(self.descriptor, b"\n")
        os.set_blocking(self.descriptor, True)


Kind = Callable[[Path], Iterator[Stream]]


def _closing(*descriptors: int) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _full_device(_: Path) -> Iterator[Stream]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield Stream(descriptor)
    os.close(descriptor)


def _pair(kind: socket.SocketKind) -> Kind:
    def opened(_: Path) -> Iterator[Stream]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
        with ours, theirs:
            yield Stream(theirs.fileno(), ours.fileno())

    return opened


def _left_socket(_: Path) -> Iterator[Stream]:
    ours, theirs = socket.socketpair()
    ours.close()
    with theirs:
        yield Stream(theirs.fileno())


def _tcp(_: Path) -> Iterator[Stream]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        theirs = socket.create_connection(listening.getsockname())
        ours, _address = listening.accept()
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    with ours, theirs:
        yield Stream(theirs.fileno(), ours.fileno())


def _pipe(_: Path) -> Iterator[Stream]:
    reading, writing = os.pipe()
    yield Stream(writing, reading)
    _closing(reading, writing)


def _left_pipe(_: Path) -> Iterator[Stream]:
    reading, writing = os.pipe()
    os.close(reading)
    yield Stream(writing)
    os.close(writing)


def _found_pipe(folder: Path) -> Iterator[Stream]:
    """A named pipe that nobody reads at first, so that it cannot be opened again."""
    os.mkfifo(folder / "fifo")
    first = os.open(folder / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(folder / "fifo", os.O_WRONLY)
    os.close(first)
    yield Stream(writing)
    os.close(writing)


def _terminal(_: Path) -> Iterator[Stream]:
    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    yield Stream(theirs, ours)
    _closing(ours, theirs)


def _stopped_terminal(_: Path) -> Iterator[Stream]:
    """A terminal that is stopped, as by Ctrl-S."""
    ours, theirs = pty.openpty()
    termios.tcflow(theirs, termios.TCOOFF)
    yield Stream(theirs, ours)
    termios.tcflow(theirs, termios.TCOON)  # a close would wait for the terminal
    _closing(ours, theirs)


def _left_terminal(_: Path) -> Iterator[Stream]:
    ours, theirs = pty.openpty()
    os.close(ours)
    yield Stream(theirs)
    os.close(theirs)


# Streams that a test reads later, by name.
READABLE: Final[Mapping[str, Kind]] = {
    "stream socket": _pair(socket.SOCK_STREAM),
    "datagram socket": _pair(socket.SOCK_DGRAM),
    "packet socket": _pair(socket.SOCK_SEQPACKET),
    "TCP socket": _tcp,
    "pipe": _pipe,
    "terminal": _terminal,
}
# Streams that are never read.
DEAD: Final[Mapping[str, Kind]] = {
    "full device": _full_device,
    "socket without its peer": _left_socket,
    "pipe without its reader": _left_pipe,
    "pipe found without a reader": _found_pipe,
    "terminal that is stopped": _stopped_terminal,
    "terminal that is gone": _left_terminal,
}


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Stream]:
    """Open a stream of that kind."""
    kind = READABLE.get(name) or DEAD[name]
    with contextmanager(kind)(folder) as stream:
        yield stream
