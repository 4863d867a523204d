"""A forward proxy on loopback, which records each request."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.support.stream_server import Streams, connected, tcp_server


@dataclass
class ForwardProxy:
    """The recorded requests, and the answer to give instead of forwarding."""

    url: str = ""
    place: tuple[str, int] | None = None  # address of every name; None: the real one
    heads: list[str] = field(default_factory=list)  # of requests, in order of arrival
    connections: int = 0
    instead: bytes | None = None  # answer to every request; b"": close the connection
    silent: bool = False  # whether it never answers

    def targets(self) -> list[str]:
        """The first lines of the requests, without the version."""
        return [head.partition(" HTTP/")[0] for head in self.heads]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.connections += 1
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        if self.silent:
            await reader.read()
        elif self.instead is not None:
            writer.write(self.instead)
        elif head.startswith("CONNECT "):
            await self._tunnel(head, reader, writer)
        else:
            await self._forward(head, reader, writer)

    async def _tunnel(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with self._dial(f"//{head.split()[1]}") as (far_reader, far_writer):
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await asyncio.gather(_pass_on(reader, far_writer), _pass_on(far_reader, writer))

    async def _forward(
        self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Forward requests in origin form, without the login, and the responses."""
        async with self._dial(head.split()[1]) as (far_reader, far_writer):
            await asyncio.gather(
                self._forward_requests(head, reader, far_writer), _pass_on(far_reader, writer)
            )

    async def _forward_requests(
        self, head: str, reader: asyncio.StreamReader, far_writer: asyncio.StreamWriter
    ) -> None:
        url = head.split()[1]
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                lines = head.replace(url, urlsplit(url)._replace(scheme="", netloc="").geturl(), 1)
                kept = [it for it in lines.split("\r\n") if not it.startswith("Proxy-")]
                far_writer.write("\r\n".join(kept).encode())
                length = head.lower().partition("content-length: ")[2].split("\r\n")[0]
                far_writer.write(await reader.readexactly(int(length or 0)))
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
        far_writer.close()

    def _dial(self, url: str) -> AbstractAsyncContextManager[Streams]:
        host, port = self.place or (urlsplit(url).hostname, urlsplit(url).port)
        return connected(port or 0, host or "")


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def forward_proxy() -> AsyncIterator[ForwardProxy]:
    """Run one until the block ends."""
    proxy = ForwardProxy()
    async with tcp_server(proxy.serve) as port:
        proxy.url = f"http://127.0.0.1:{port}"
        yield proxy
