"""A server that drops connections: what is on the wire is counted."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Dropping:
    """Answers the first requests and drops the connection of each later one, unanswered."""

    def __init__(self, answers: int, reset: bool) -> None:
        self.answers = answers  # how many requests are answered
        self.reset = reset  # whether dropping is a reset, else an orderly close
        self.requests: list[str] = []  # the method of each request that came in whole
        self.port = 0  # where it listens on 127.0.0.1

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        while await self._answered(reader, writer):
            pass
        if self.reset:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

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
    """One on a free loopback port."""
    here = Dropping(answers, reset)
    server = await asyncio.start_server(here.serve, "127.0.0.1", 0)
    here.port = server.sockets[0].getsockname()[1]
    async with server:
        yield here
