"""A client that sends raw bytes in any pieces, and reads every response strictly."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tests.support.problems import MEMBERS

TURNS = 2  # of the loop, within which a server in it has read what was sent
PATIENCE = 10.0  # seconds
PROBE = b"OPTIONS /health/live HTTP/1.1\r\nHost: probe\r\n\r\n"


class Response(NamedTuple):
    """One response."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """Its body, checked as a problem (RFC 9457)."""
        assert self.headers["content-type"] == "application/problem+json", self
        found: dict[str, Any] = json.loads(self.body)
        assert set(found) >= MEMBERS, self
        assert (found["type"], found["status"]) == ("about:blank", self.status)
        assert found["title"]
        assert found["detail"]
        return found


PROBED = 204  # status of the request that probes the connection; no test expects it otherwise


class Exchange(NamedTuple):
    """The responses on one connection."""

    responses: list[Response]
    kept: bool  # whether the connection answered one more request


def whole(request: bytes) -> list[bytes]:
    """In one packet."""
    return [request]


def head_and_body(request: bytes) -> list[bytes]:
    """Two packets, cut after the first empty line."""
    head, end, body = request.partition(b"\r\n\r\n")
    return [head + end, body] if body else [head + end]


def bytewise(request: bytes) -> list[bytes]:
    """One packet a byte; of a long request only for the first and last thousand bytes."""
    few, many = request[:1000], request[1000:]
    middle, last = many[:-1000], many[-1000:]
    parts = [few[n : n + 1] for n in range(len(few))]
    return [*parts, *([middle] if middle else []), *(last[n : n + 1] for n in range(len(last)))]


async def turns() -> None:
    """Let the loop turn, so that a server that runs in it reads what was sent."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def exchange(
    port: int,
    packets: Iterable[bytes],
    count: int = 1,
    methods: Sequence[str] = (),
    until_read: Callable[[], Awaitable[None]] = turns,
) -> Exchange:
    """Send these pieces, read `count` responses, then probe the connection by one more request.

    `until_read` is awaited after each packet. `methods`: of the requests, where one is HEAD.
    """
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        connection = _Connection(sock, methods, until_read)
        for packet in packets:
            await connection.send(packet)
        await connection.receive(lambda found: len(found) >= count)
        await connection.send(PROBE)
        found = await connection.receive(_probed)
        kept = _probed(found)
        return Exchange(found[:-1] if kept else found, kept)


def _probed(found: list[Response]) -> bool:
    return found[-1:] != [] and found[-1].status == PROBED


class _Connection:
    """The connection of such a client."""

    def __init__(
        self,
        sock: socket.socket,
        methods: Sequence[str],
        until_read: Callable[[], Awaitable[None]],
    ) -> None:
        self._until_read = until_read
        self._sock = sock
        self._methods = methods
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._ended = False

    async def send(self, packet: bytes) -> None:
        """Send a piece, and wait until the server has read it or closed the connection."""
        try:
            await self._loop.sock_sendall(self._sock, packet)
        except (BrokenPipeError, ConnectionResetError):
            return
        await self._until_read()

    async def receive(self, enough: Callable[[list[Response]], bool]) -> list[Response]:
        """Wait for this many responses, or for the end of the connection → all responses."""
        while not self._ended and not enough(responses(self._received, self._methods)):
            try:
                receiving = self._loop.sock_recv(self._sock, 65536)
                more = await asyncio.wait_for(receiving, PATIENCE)
            except ConnectionResetError:
                more = b""
            self._ended = not more
            self._received += more
        return responses(self._received, self._methods)


def responses(received: bytes | bytearray, methods: Sequence[str] = ()) -> list[Response]:
    """The complete responses in these bytes. Fails if they are not HTTP."""
    found, rest, asked = [], bytes(received), iter(methods)
    while b"\r\n\r\n" in rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = line.split(" ", 2)
        assert version == "HTTP/1.1"
        if status == "100":
            continue
        fields = [it.split(": ", 1) for it in lines]
        headers = {name.lower(): value for name, value in fields}
        assert len(headers) == len(fields), "a field twice"
        headers.pop("date", None)
        bodiless = next(asked, "GET") == "HEAD" or status == "204"
        length = 0 if bodiless else int(headers["content-length"])
        if len(rest) < length:
            break
        found.append(Response(int(status), headers, rest[:length]))
        rest = rest[length:]
    return found
