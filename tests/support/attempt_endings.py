"""Every way in which an attempt can end, each with a server on loopback that ends it so."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

from tests.support.dropping_server import dropping
from tests.support.raw_server import endless_server, mute_server, raw_server
from tests.support.stream_server import tcp_server

OK: Final = b"HTTP/1.1 200 OK\r\n"
CHUNKED: Final = b"Transfer-Encoding: chunked\r\n\r\n"

Place = Callable[[], AbstractAsyncContextManager[str]]


def answering(answer: bytes) -> Place:
    """A server that sends these bytes and closes the connection."""
    return lambda: raw_server(answer)


def empty(status: int, fields: bytes = b"") -> Place:
    """A server that answers without a body and closes the connection."""
    return answering(b"HTTP/1.1 %d x\r\n%bContent-Length: 0\r\n\r\n" % (status, fields))


@asynccontextmanager
async def keeping() -> AsyncIterator[str]:
    """A server that keeps connections open for further requests."""
    async with dropping(1_000_000) as here:
        yield f"http://127.0.0.1:{here.port}/"


@asynccontextmanager
async def resetting() -> AsyncIterator[str]:
    """A server that resets each connection after the head of a request."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with tcp_server(reset) as port:
        yield f"http://127.0.0.1:{port}/"


@asynccontextmanager
async def refusing() -> AsyncIterator[str]:
    """A port on which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/"


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A server that reads the request and never answers."""
    async with mute_server() as here:
        yield f"http://{here}/"


@asynccontextmanager
async def stalling() -> AsyncIterator[str]:
    """A server that never completes the TLS handshake."""
    async with mute_server() as here:
        yield f"https://{here}/"


@asynccontextmanager
async def plain() -> AsyncIterator[str]:
    """A server without TLS, called with https."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(OK)

    async with tcp_server(answer) as port:
        yield f"https://127.0.0.1:{port}/"


@asynccontextmanager
async def at(url: str) -> AsyncIterator[str]:
    """A URL at which no server is needed."""
    yield url


@asynccontextmanager
async def dripping(begin: bytes, more: bytes, every: float) -> AsyncIterator[str]:
    """A server whose response never ends."""
    async with endless_server(begin, more, every) as (url, _):
        yield url


# Ending → the status or error of its attempt.
ENDINGS: Final[dict[str, tuple[Place, int | str]]] = {
    "delivered": (keeping, 200),
    "delivered, and the connection ends": (empty(200), 200),
    "delivered in chunks": (answering(OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n"), 200),
    "to be retried": (empty(503, b"Retry-After: 9\r\n"), 503),
    "gone": (empty(410), 410),
    "a redirect": (empty(302, b"Location: /elsewhere\r\n"), 302),
    "no HTTP": (answering(b"no HTTP\r\n\r\n"), "bad_response"),
    "a head without end": (lambda: dripping(OK, b"X: y\r\n" * 1000, 0), 200),
    "cut in its head": (answering(OK), "disconnected"),
    "cut in its body": (answering(OK + b"Content-Length: 9\r\n\r\nok"), 200),
    "cut in its chunks": (answering(OK + CHUNKED + b"9\r\nok"), 200),
    "broken chunks": (answering(OK + CHUNKED + b"2\r\nok?\r\n"), 200),
    "a body too long": (lambda: dripping(OK + b"\r\n", b"x" * 65_536, 0), 200),
    "a body that drips": (lambda: dripping(OK + b"\r\n", b"x", 0.05), 200),
    "closed unanswered": (answering(b""), "disconnected"),
    "reset": (resetting, "disconnected"),
    "refused": (refusing, "connect_error"),
    "no answer in time": (silent, "timeout"),
    "no handshake in time": (stalling, "connect_timeout"),
    "no TLS": (plain, "tls_error"),
    "no such name": (lambda: at("http://nowhere.invalid/"), "dns_error"),
    "not allowed": (lambda: at("http://10.0.0.1/"), "egress_denied"),
}
# Endings that take the whole timeout.
TIMED: Final = frozenset({"a body that drips", "no answer in time", "no handshake in time"})
