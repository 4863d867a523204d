"""Servers that send raw bytes, once or without end."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.support.stream_server import tcp_server

LATE = 0.05  # seconds


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

    async with tcp_server(handle, tls) as port:
        yield f"http{'s' if tls else ''}://127.0.0.1:{port}/"


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
        while not writer.is_closing():
            writer.write(part)
            await writer.drain()
            written.append(len(part))
            part = more
            await asyncio.sleep(every)

    async with tcp_server(handle) as port:
        yield f"http://127.0.0.1:{port}/", written


@asynccontextmanager
async def mute_server() -> AsyncIterator[str]:
    """Accepts connections and never sends a byte → host and port."""

    async def handle(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass

    async with tcp_server(handle) as port:
        yield f"127.0.0.1:{port}"
