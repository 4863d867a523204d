"""A server that sends its responses in pieces, a packet each."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.support.stream_server import tcp_server

MINE = b"HTTP/1.1 299 Mine\r\nContent-Length: 4\r\n\r\nmine"  # answer to every further request


@dataclass
class Cutting:
    """The next responses, and the number of requests of each connection."""

    port: int = 0
    answers: list[tuple[Sequence[bytes], bool]] = field(default_factory=list)
    connections: list[int] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mine = len(self.connections)
        self.connections.append(0)
        ends = False
        while not ends and await reader.readuntil(b"\r\n\r\n"):
            self.connections[mine] += 1
            pieces, ends = self.answers.pop(0) if self.answers else ([MINE], False)
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)  # one turn of the loop, so that the piece is sent alone


@asynccontextmanager
async def cutting() -> AsyncIterator[Cutting]:
    """Run one on a free port of loopback."""
    here = Cutting()
    async with tcp_server(here.serve) as here.port:
        yield here
