"""A server that drops connections, and records each request that it read."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stream_server import tcp_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Dropping:
    """Answers the first requests; drops the connection of each later one without an answer."""

    def __init__(self, answers: int, reset: bool) -> None:
        self.answers = answers  # number of requests that get an answer
        self.reset = reset  # whether it resets connections; else it closes them
        self.requests: list[str] = []  # method of each request that it read whole
        self.port = 0  # on 127.0.0.1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while await self._answered(reader, writer):
            pass
        if self.reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def _answered(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            return False
        _, _, after = head.partition("content-length: ")
        await reader.readexactly(int(after.partition("\r\n")[0] or 0))
        self.requests.append(head.partition(" ")[0].upper())
        answered = len(self.requests) <= self.answers
        writer.write(OK if answered else b"")
        return answered


@asynccontextmanager
async def dropping(answers: int = 99, *, reset: bool = False) -> AsyncIterator[Dropping]:
    """Run one on a free port of loopback."""
    here = Dropping(answers, reset)
    async with tcp_server(here.serve) as here.port:
        yield here
