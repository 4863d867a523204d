"""Each request is made exactly once; connections are reused when that is safe."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.connector import Connection
from yarl import URL

from scheduler_api.delivery.http.deadlines import Deadlines
from scheduler_api.delivery.http.egress import GuardedConnector
from scheduler_api.delivery.http.response import ResponseReader
from scheduler_api.delivery.http.transport import Transport, open_transport
from tests.support.dropping_server import dropping
from tests.support.factories import LOOPBACK
from tests.support.fragmenting_server import cutting
from tests.support.raw_server import raw_server
from tests.support.stream_server import tcp_server
from tests.support.waiting import wait_until

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
TIMED_OUT = b"HTTP/1.1 408 Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE"]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Connects to loopback."""
    async with open_transport(LOOPBACK) as transport:
        yield transport


async def send_to(
    transport: Transport, url: str, method: str = "POST", body: bytes | None = b"body"
) -> ResponseReader:
    """Send one request."""
    deadline = Deadlines().at(time.monotonic() + 60)
    return await transport.send(method, URL(url), "/", {}, body, deadline)


async def send(transport: Transport, method: str, port: int) -> int | None:
    """The status of the response."""
    body = None if method == "GET" else b"body"
    return (await send_to(transport, f"http://127.0.0.1:{port}/", method, body)).status


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", METHODS)
async def test_send_makes_one_request_if_a_new_connection_drops(
    transport: Transport, method: str, reset: bool
) -> None:
    async with dropping(0, reset=reset) as here:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send(transport, method, here.port)
    assert here.requests == [method]


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("method", METHODS)
async def test_send_repeats_a_request_once_if_a_reused_connection_drops(
    transport: Transport, method: str, reset: bool
) -> None:
    async with dropping(1, reset=reset) as here:
        assert await send(transport, method, here.port) == 200
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send(transport, method, here.port)
    assert here.requests == [method] * 3


@pytest.mark.parametrize("method", METHODS)
async def test_send_uses_a_new_connection_if_a_reused_one_gives_no_response(
    transport: Transport, method: str
) -> None:
    async with cutting() as here:
        here.answers = [([ANSWER], False), ([], True)]
        assert await send(transport, method, here.port) == 200
        assert await send(transport, method, here.port) == 299
    assert here.connections == [2, 1]


async def test_send_tries_no_other_idle_connection_after_one_that_gave_no_response(
    transport: Transport,
) -> None:
    async with cutting() as here:
        here.answers = [([ANSWER], False)] * 3
        first = await asyncio.gather(*(send(transport, "POST", here.port) for _ in range(3)))
        assert first == [200] * 3
        here.answers = [([], True)]
        assert await send(transport, "POST", here.port) == 299
    assert sorted(here.connections) == [1, 1, 1, 2]


@pytest.mark.parametrize("part", [b"H", ANSWER[:-1]])
async def test_send_does_not_repeat_a_request_if_a_response_has_begun(
    transport: Transport, part: bytes
) -> None:
    async with cutting() as here:
        here.answers = [([ANSWER], False), ([part], True)]
        assert await send(transport, "POST", here.port) == 200
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send(transport, "POST", here.port)
    assert here.connections == [2]


async def test_send_repeats_a_request_if_a_reused_connection_closes_with_408(
    transport: Transport,
) -> None:
    async with cutting() as here:
        here.answers = [([ANSWER], False), ([TIMED_OUT], True)]
        assert await send(transport, "POST", here.port) == 200
        assert await send(transport, "POST", here.port) == 299
    assert here.connections == [2, 1]


async def test_send_returns_any_other_408(transport: Transport) -> None:
    kept = TIMED_OUT.replace(b"Connection: close\r\n", b"")
    async with cutting() as here:
        here.answers = [
            ([ANSWER], False),
            ([kept], False),
            ([TIMED_OUT], True),
            ([TIMED_OUT], True),
        ]
        found = [await send(transport, "POST", here.port) for _ in range(3)]
    assert found == [200, 408, 408], (
        "on a connection that stays open; then on a reused one, and on the new one"
    )
    assert here.connections == [3, 1]


async def test_send_raises_client_connector_error_if_the_port_is_closed(
    transport: Transport,
) -> None:
    async with dropping() as here:
        pass
    with pytest.raises(aiohttp.ClientConnectorError):
        await send(transport, "POST", here.port)


async def test_send_raises_server_disconnected_if_a_connection_ends_as_it_is_made() -> None:
    class Ending(GuardedConnector):
        async def connect(self, *args: Any, **options: Any) -> Connection:
            connection = await super().connect(*args, **options)
            assert connection.transport is not None
            connection.transport.abort()
            await wait_until("the closed connection", lambda: connection.transport is None)
            return connection

    async with dropping() as here, Ending(LOOPBACK) as connector:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await send(Transport(connector), "POST", here.port)
    assert here.requests == []


@pytest.mark.parametrize("stray", [TIMED_OUT, ANSWER, b"\r\n", b"x", b"x" * 1_000_000])
async def test_stray_bytes_close_an_idle_connection_and_fail_no_attempt(
    transport: Transport, stray: bytes
) -> None:
    idle: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle.append(writer)
        while await reader.readuntil(b"\r\n\r\nbody"):
            writer.write(ANSWER)

    async with tcp_server(serve) as port:
        assert await send(transport, "POST", port) == 200
        ((protocol, _),) = next(iter(transport._connector._conns.values()))
        idle[0].write(stray)
        await wait_until("the closed connection", lambda: not protocol.is_connected())
        assert await send(transport, "POST", port) == 200
        assert len(idle) == 2, "on a new connection"


async def test_exchange_ends_with_a_response_that_arrives_as_it_is_cancelled() -> None:
    async with cutting() as here, GuardedConnector(LOOPBACK) as connector:
        here.answers = [([b""], False)]
        transport = Transport(connector)
        asking = asyncio.create_task(send(transport, "POST", here.port))
        await wait_until("the request", lambda: here.connections == [1])
        (protocol,) = connector._acquired
        asking.cancel()
        protocol.data_received(ANSWER)  # before the task runs again
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert await send(transport, "POST", here.port) == 299
    assert here.connections == [2], "the response was complete"


async def test_protocol_leaves_requests_of_aiohttp_to_aiohttp() -> None:
    async with (
        raw_server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as url,
        GuardedConnector(LOOPBACK) as connector,
        aiohttp.ClientSession(connector=connector) as session,
    ):
        Transport(connector)
        assert await (await session.get(url)).text() == "ok"


async def test_send_does_not_reuse_a_connection_with_half_a_request(
    transport: Transport,
) -> None:
    body, taken, go = bytes(16 * 1024 * 1024), list[int](), asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n")
        await go.wait()
        size = 0
        with suppress(ConnectionResetError):
            while chunk := await reader.read(65536):
                size += len(chunk)
        taken.append(size)

    async with tcp_server(refuse) as port:
        url = f"http://127.0.0.1:{port}/"
        for _ in range(2):
            assert (await send_to(transport, url, body=body)).status == 413
        go.set()
        await wait_until("the end of both connections", lambda: len(taken) == 2)
    assert max(taken) < len(body)  # the rest was not sent when the receiver read again
