"""No connection of a server is open after its block, whatever its handlers and clients do."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import trustme

from tests.support import stream_server
from tests.support.stream_server import (
    Handle,
    connected,
    open_transports,
    tcp_server,
    unix_server,
)
from tests.support.waiting import wait_until

UNREAD = bytes(16 * 1024 * 1024)  # more than the sockets between two processes hold


async def sleep(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Does not notice that its client leaves."""
    await asyncio.sleep(1000)


async def read(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Waits for its client."""
    await reader.readexactly(1)


async def leave_unsent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Ends before its data is sent."""
    writer.write(UNREAD)


async def send(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Waits until its data is sent."""
    writer.write(UNREAD)
    await writer.drain()


class Calls:
    """Counts the calls of a handler."""

    def __init__(self, handle: Handle) -> None:
        self.begun = self.ended = 0
        self._handle = handle

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.begun += 1
        try:
            await self._handle(reader, writer)
        finally:
            self.ended += 1


def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Of a server, and of a client that trusts it."""
    authority = trustme.CA()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


def dial(port: int, tls: ssl.SSLContext | None = None) -> socket.socket:
    """A client that does not read; it is no transport."""
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    return tls.wrap_socket(client, server_hostname="127.0.0.1") if tls else client


@pytest.mark.parametrize("leaves", [False, True], ids=["client stays", "client leaves"])
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("handle", [sleep, read, leave_unsent, send])
async def test_tcp_server_ends_every_connection(
    handle: Handle, *, secure: bool, leaves: bool
) -> None:
    before, calls = open_transports(), Calls(handle)
    of_server, of_client = contexts() if secure else (None, None)
    async with tcp_server(calls.handle, of_server) as port:
        client = await asyncio.to_thread(dial, port, of_client)
        await wait_until("the connection", lambda: calls.begun == 1)
        assert open_transports() - before
        if leaves:
            client.close()
    assert not open_transports() - before
    assert calls.ended == calls.begun
    client.close()


async def test_unix_server_ends_every_connection(tmp_path: Path) -> None:
    before, calls, path = open_transports(), Calls(sleep), tmp_path / "socket"
    async with unix_server(calls.handle, path):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            await wait_until("the connection", lambda: calls.begun == 1)
    assert not open_transports() - before
    assert calls.ended == 1


@pytest.mark.parametrize("turns", range(4))
async def test_tcp_server_ends_a_connection_that_it_has_just_accepted(turns: int) -> None:
    before, calls = open_transports(), Calls(sleep)
    async with tcp_server(calls.handle) as port:
        client = dial(port)
        for _ in range(turns):
            await asyncio.sleep(0)
    assert not open_transports() - before
    assert calls.ended == calls.begun
    client.close()


async def test_tcp_server_waits_for_a_handshake_until_its_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream_server, "HANDSHAKE_TIMEOUT", 1.0)
    before = open_transports()
    async with tcp_server(sleep, contexts()[0]) as port:
        client = dial(port)
        await wait_until("the connection", lambda: len(open_transports() - before) == 2)
    assert not open_transports() - before
    client.close()


async def test_tcp_server_lets_a_client_that_reads_get_everything() -> None:
    async with tcp_server(leave_unsent) as port, connected(port) as (reader, _):
        assert len(await reader.read(-1)) == len(UNREAD)


async def fail(port: int) -> None:
    async with connected(port) as (_, writer):
        writer.write(UNREAD)
        raise ZeroDivisionError


async def test_connected_drops_unsent_data_if_its_block_fails() -> None:
    before = open_transports()
    async with tcp_server(sleep) as port:
        with pytest.raises(ZeroDivisionError):
            await fail(port)
    assert not open_transports() - before
