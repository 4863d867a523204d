"""A proxy on loopback that fails as networks do.

Faults hold for a direction ("up": towards the server) of all connections, open and new, until
`heal`. Bytes are held back, slowed down or dropped, never made up.
"""

import asyncio
import hashlib
import math
import random
import socket
import struct
from collections import Counter, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from scheduler_api.store.connection.script_text import NAMES, source
from tests.support.stream_server import Connections

Direction = Literal["up", "down"]
Upstream = tuple[str, int] | Path  # host and port, or a unix socket
Step = Literal["command", "reply"]
Watch = Callable[[Step, str], Awaitable[None]]
Line = asyncio.Queue[tuple[float, bytes]]  # bytes on their way, and when each arrives

BOTH: Final[tuple[Direction, ...]] = ("up", "down")
SLICES: Final = 20  # a second, into which a limited rate is divided
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # SO_LINGER 0: close sends a reset


def script_names(libs: Mapping[str, str] | None = None, partitions: int = 1) -> dict[str, str]:
    """SHA1 → name of each script; `libs`, `partitions`: see Scripts."""
    return {_sha1(source(name, libs, partitions)): name for name in NAMES}


def _sha1(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 the server's choice


@dataclass
class _Way:
    """The faults of one direction."""

    latency: float = 0.0  # seconds
    jitter: float = 0.0  # at most this many seconds more
    rate: float = math.inf  # bytes a second
    limit: float = math.inf  # bytes after which a connection ends
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flows.set()


@dataclass
class _Loss:
    """The `nth` reply to `to` from now on is lost after its first `kept` bytes."""

    to: str
    nth: int
    kept: int
    closes: bool

    def strikes(self, name: str) -> bool:
        """Count a reply to that command → whether it is the one to lose."""
        if self.to not in ("", name):
            return False
        self.nth -= 1
        return self.nth == 0


class FaultProxy:
    """Forwards to one server; with `resp`, one Redis command or reply at a time."""

    def __init__(
        self,
        upstream: Upstream,
        *,
        seed: int = 0,
        resp: bool = True,
        names: Mapping[str, str] | None = None,
    ) -> None:
        """`names`: SHA1 → name of scripts; default: the shipped ones."""
        self.upstream = upstream
        self.port = 0
        self.replies: Counter[str] = Counter()  # of the server by command, lost ones included
        self.watch: Watch | None = None  # awaited before a command or a reply is forwarded
        self.resp = resp
        self.random = random.Random(seed)  # noqa: S311
        self.ways = {direction: _Way() for direction in BOTH}
        self._names = script_names() if names is None else names
        self._losses: list[_Loss] = []
        self.connections: set[_Connection] = set()  # open ones
        self._server: asyncio.Server | None = None
        self._accepted = Connections(self._serve)  # of that server

    @property
    def address(self) -> str:
        """As a client of Redis takes it."""
        return f"redis://127.0.0.1:{self.port}"

    def latency(self, seconds: float, jitter: float = 0.0, direction: Direction = "down") -> None:
        """Delay everything by this many seconds."""
        self.ways[direction].latency, self.ways[direction].jitter = seconds, jitter

    def rate(self, bytes_per_second: float, direction: Direction = "down") -> None:
        """Limit each connection to this many bytes a second."""
        self.ways[direction].rate = bytes_per_second

    def black_hole(self, *directions: Direction) -> None:
        """Hold everything back until `heal`; both ways if none is named."""
        for direction in directions or BOTH:
            self.ways[direction].flows.clear()

    def cut_after(self, count: int, direction: Direction = "down") -> None:
        """End each connection after this many further bytes."""
        self.ways[direction].limit = count
        for connection in self.connections:
            connection.passed[direction] = 0

    def swallow_reply(self, to: str = "", nth: int = 1) -> None:
        """Lose the nth reply from now on to that script or command; keep the connection."""
        self._losses.append(_Loss(to, nth, kept=0, closes=False))

    def cut_reply(self, to: str = "", nth: int = 1, *, kept: int = 0) -> None:
        """Forward `kept` bytes of that reply, then end the connection."""
        self._losses.append(_Loss(to, nth, kept, closes=True))

    def reset(self) -> None:
        """Reset every connection."""
        for connection in self.connections:
            connection.reset()

    async def refuse(self) -> None:
        """Refuse new connections, and end the open ones."""
        server, self._server = self._server, None
        self.reset()
        if server:
            await self._accepted.end(server)

    async def heal(self) -> None:
        """End all faults; the port stays the same."""
        self._losses.clear()
        for direction, way in self.ways.items():
            way.flows.set()
            self.ways[direction] = _Way()
        if self._server is None:
            self._accepted = Connections(self._serve)
            self._server = await asyncio.start_server(self._accepted.accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    def name_of(self, words: list[bytes]) -> str:
        """The script's name, or the command in capitals."""
        command = words[0].decode().upper() if words else ""
        return self._names.get(words[1].decode(), command) if command == "EVALSHA" else command

    def loss(self, name: str) -> _Loss | None:
        """The loss that meets the reply to this command; None: it passes."""
        self.replies[name] += 1
        struck = [loss for loss in self._losses if loss.strikes(name)]
        return struck[0] if struck else None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.run()
        finally:
            connection.close()
            self.connections.discard(connection)
        await connection.closed()


class _Connection:
    """A client's connection, and the one to the server."""

    def __init__(
        self, proxy: FaultProxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.passed: dict[Direction, int] = {"up": 0, "down": 0}  # bytes
        self._proxy = proxy
        self._readers: dict[Direction, asyncio.StreamReader] = {"up": reader}
        self._writers: dict[Direction, asyncio.StreamWriter] = {"down": writer}
        self._copies: list[asyncio.Task[None]] = []
        self._asked: deque[str] = deque()  # commands whose reply has not come
        self._subscribed = False  # replies no longer belong to commands

    async def run(self) -> None:
        """Forward until one side or a fault ends it."""
        with suppress(OSError):
            self._readers["down"], self._writers["up"] = await _dial(self._proxy.upstream)
            self._copies = [asyncio.create_task(self._copy(direction)) for direction in BOTH]
            try:
                await asyncio.wait(self._copies, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _end(self._copies)

    async def closed(self) -> None:
        """Wait until both sides are closed; if cancelled, unsent data is dropped."""
        try:
            for writer in self._writers.values():
                with suppress(OSError):
                    await writer.wait_closed()
        finally:
            for writer in self._writers.values():
                writer.transport.abort()

    def close(self) -> None:
        """End both sides."""
        for writer in self._open():
            writer.close()

    def reset(self) -> None:
        """Reset both sides; a unix socket is closed."""
        for writer in self._open():
            sock = writer.get_extra_info("socket")
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
            writer.transport.abort()
        for copy in self._copies:  # a task that is held back notices no close
            copy.cancel()

    def _open(self) -> list[asyncio.StreamWriter]:
        return [writer for writer in self._writers.values() if not writer.is_closing()]

    async def _copy(self, direction: Direction) -> None:
        line: Line = asyncio.Queue()
        reading = asyncio.create_task(self._read(direction, line))
        try:
            await self._write(direction, line)
        finally:
            await _end([reading])

    async def _read(self, direction: Direction, line: Line) -> None:
        loop = asyncio.get_running_loop()
        with suppress(ConnectionError):
            async for frame in self._frames(self._readers[direction]):
                way = self._proxy.ways[direction]
                delay = way.latency + self._proxy.random.uniform(0, way.jitter)
                line.put_nowait((loop.time() + delay, frame))
        line.put_nowait((0.0, b""))  # marks the end, after the bytes before it

    async def _frames(self, reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
        rest = b""
        while chunk := await reader.read(65_536):
            rest += chunk
            while rest and (end := frame_end(rest) if self._proxy.resp else len(rest)):
                yield rest[:end]
                rest = rest[end:]

    async def _write(self, direction: Direction, line: Line) -> None:
        loop = asyncio.get_running_loop()
        while True:
            at, frame = await line.get()
            if not frame:
                return
            await asyncio.sleep(at - loop.time())
            kept, closes = await self._judge(direction, frame)
            await self._proxy.ways[direction].flows.wait()
            if not await self._pass(direction, frame[:kept]) or closes:
                return

    async def _judge(self, direction: Direction, frame: bytes) -> tuple[int, bool]:
        """The number of bytes that pass, and whether the connection ends after them."""
        if not self._proxy.resp:
            return len(frame), False
        if direction == "up":
            name = self._proxy.name_of(_words(frame))
            self._subscribed |= name.endswith("SUBSCRIBE")
            self._asked.append(name)
        elif self._subscribed or not self._asked or frame.startswith(b">"):
            return len(frame), False
        else:
            name = self._asked.popleft()
        if self._proxy.watch:
            await self._proxy.watch("command" if direction == "up" else "reply", name)
        loss = self._proxy.loss(name) if direction == "down" else None
        return (loss.kept, loss.closes) if loss else (len(frame), False)

    async def _pass(self, direction: Direction, data: bytes) -> bool:
        """Forward as many bytes as may pass; False: the connection ends."""
        way, writer = self._proxy.ways[direction], self._writers[direction]
        size = len(data) if way.rate == math.inf else max(1, int(way.rate / SLICES))
        for start in range(0, len(data), size or 1):
            room = int(min(way.limit - self.passed[direction], size))
            part = data[start : start + room]
            await asyncio.sleep(len(part) / way.rate)
            writer.write(part)
            await writer.drain()
            self.passed[direction] += len(part)
        return self.passed[direction] < way.limit


def frame_end(buffer: bytes, start: int = 0) -> int:
    """The end of the frame at `start` (RESP 2 and 3); 0: it is incomplete."""
    line = buffer.find(b"\r\n", start)
    if line < 0:
        return 0
    kind, end = buffer[start : start + 1], line + 2
    if kind in (b"$", b"!", b"="):
        size = int(buffer[start + 1 : line])
        end += size + 2 if size >= 0 else 0  # -1: null
        return end if end <= len(buffer) else 0
    if kind in (b"*", b"~", b">", b"%"):
        for _ in range(int(buffer[start + 1 : line]) * (2 if kind == b"%" else 1)):
            end = frame_end(buffer, end)
            if not end:
                return 0
    return end


def _words(frame: bytes) -> list[bytes]:
    """The first two words of a command."""
    return frame.split(b"\r\n", 5)[2:5:2] if frame.startswith(b"*") else frame.split()[:2]


async def _end(tasks: "Iterable[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _dial(upstream: Upstream) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(upstream, Path):
        return await asyncio.open_unix_connection(upstream)
    return await asyncio.open_connection(*upstream)


@asynccontextmanager
async def proxying(
    upstream: Upstream,
    *,
    seed: int = 0,
    resp: bool = True,
    names: Mapping[str, str] | None = None,
) -> AsyncIterator[FaultProxy]:
    """Run a proxy, and remove it afterwards."""
    proxy = FaultProxy(upstream, seed=seed, resp=resp, names=names)
    await proxy.heal()
    try:
        yield proxy
    finally:
        await proxy.refuse()
