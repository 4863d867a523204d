"""Servers that send raw bytes, once or without end."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

LATE = 0.05  # seconds
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def raw_server(
    answer: bytes,
    tls: ssl.SSLContext | None = None,
    heads: list[bytes] | None = None,
    late: bytes = b"",
) -> AsyncIterator[str]:
    """Reads a request's head, noted in `heads`, writes these bytes, and after a while the late
    ones, closes → its URL."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if heads is not None:
            heads.append(head)
        writer.write(answer)
        if late:
            await asyncio.sleep(LATE)
            writer.write(late)

    async with _serving(handle, tls) as url:
        yield url


@asynccontextmanager
async def endless_server(
    begin: bytes, more: bytes, every: float = 0.0
) -> AsyncIterator[tuple[str, list[int]]]:
    """Writes `begin`, then `more` every `every` seconds, until its caller leaves
    → its URL, and the sizes of what it could write."""
    written: list[int] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        part = begin
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(part)
                await writer.drain()
                written.append(len(part))
                part = more
                await asyncio.sleep(every)

    async with _serving(handle) as url:
        yield url, written


@asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """Accepts connections and never sends a byte → host and port."""

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    async with _serving(handle) as url:
        yield url.split("/")[2]


@asynccontextmanager
async def _serving(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    host, port = server.sockets[0].getsockname()
    async with server:
        yield f"http{'s' if tls else ''}://{host}:{port}/"
