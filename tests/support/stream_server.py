"""Servers and connections of tests, of which none is open after the block that uses it.

A transport that is still open when its loop closes makes uvloop fail, or wait without end.
"""

import asyncio
import gc
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.waiting import wait_until

HANDSHAKE_TIMEOUT = 10.0  # seconds; a server that ends waits for open TLS handshakes
TRANSPORTS = ("TCPServer", "TCPTransport", "UnixServer", "UnixTransport")  # of uvloop
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Handle = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Connections:
    """The connections of one server, each with the task that handles it."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._ending = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Handle a new connection."""
        if self._ending:
            asyncio.get_running_loop().call_soon(writer.transport.abort)
            return
        task = asyncio.create_task(self._run(reader, writer))
        self._open[task] = writer
        task.add_done_callback(self._open.pop)

    async def end(self, server: asyncio.Server) -> None:
        """Stop listening, abort every connection, cancel its handler, wait until all is closed.

        A handler that calls it is cancelled too, and the rest is done without it.
        """
        await asyncio.shield(asyncio.create_task(self._end(server)))

    async def _end(self, server: asyncio.Server) -> None:
        self._ending = True
        closed = asyncio.create_task(server.wait_closed())
        await asyncio.sleep(0)  # it must begin to wait before `close`: later it returns at once
        server.close()
        tasks = list(self._open)
        for task in tasks:
            self._open[task].transport.abort()
            task.cancel()
        await asyncio.wait([closed, *tasks])

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Reader and writer keep the error of their connection, which would keep this frame, and so
        # both of them, until the garbage collector runs.
        try:
            await self._handle(reader, writer)
        except (OSError, EOFError) as error:  # the client has left
            error.__traceback__ = None
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError as error:
                error.__traceback__ = None


@asynccontextmanager
async def tcp_server(handle: Handle, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Calls `handle` for each connection, then closes it → its port on 127.0.0.1."""
    connections, timeout = Connections(handle), HANDSHAKE_TIMEOUT if tls else None
    server = await asyncio.start_server(
        connections.accept, "127.0.0.1", 0, ssl=tls, ssl_handshake_timeout=timeout
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await connections.end(server)


@asynccontextmanager
async def unix_server(handle: Handle, path: Path) -> AsyncIterator[None]:
    """The same at a Unix socket."""
    connections = Connections(handle)
    server = await asyncio.start_unix_server(connections.accept, path)
    try:
        yield
    finally:
        await connections.end(server)


@asynccontextmanager
async def connected(port: int, host: str = "127.0.0.1") -> AsyncIterator[Streams]:
    """A connection to a server; it is closed after its unsent data, or at once by an exception."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    finally:
        writer.transport.abort()


def open_transports() -> set[str]:
    """Every server and connection of uvloop in this process that is not closed, as shown."""
    return {_show(one) for one in _left_open()}


def _left_open() -> list[Any]:
    return [one for one in _found(*TRANSPORTS) if "closed=False" in repr(one)]


def _is_of_client(transport: Any) -> bool:
    """Whether it is a connection of asyncio.open_connection, by which redis-py connects."""
    protocol = getattr(transport, "get_protocol", str)()
    of_server = getattr(protocol, "_client_connected_cb", None) is not None
    return isinstance(protocol, asyncio.StreamReaderProtocol) and not of_server


async def end_transports() -> list[str]:
    """End the servers and connections that do not end soon by themselves → what they were.

    Without connections of redis-py: its cluster client leaves one that is being opened while the
    client is closed or replaces its nodes (`ClusterNode.disconnect` sees open ones only).
    """
    with suppress(AssertionError):
        await wait_until("the end of every connection", lambda: not open_transports(), 5.0)
    left_open = {_show(one) for one in _left_open() if not _is_of_client(one)}
    if open_transports():
        for server in _found("Server"):
            server.close()
        for transport in _found("TCPTransport", "UnixTransport"):
            transport.abort()
        await asyncio.sleep(0)  # the loop's next turn closes them
    return sorted(left_open)


def _show(transport: Any) -> str:
    protocol = getattr(transport, "get_protocol", str)()  # a server has none
    return f"{type(transport).__name__} {id(transport):#x} {protocol}"


def _found(*kinds: str) -> list[Any]:
    found = [one for one in gc.get_objects() if type(one).__name__ in kinds]
    return [one for one in found if type(one).__module__ == "uvloop.loop"]
