"""Requests on the wire: each exactly once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import pytest
from aiohttp.connector import Connection
from yarl import URL

from scheduler_api.delivery.deadlines import Deadlines
from scheduler_api.delivery.egress import GuardedConnector
from scheduler_api.delivery.transport import Answer, Transport, open_transport
from tests.support.dropping import dropping
from tests.support.factories import LOOPBACK
from tests.support.raw import raw_server
from tests.support.waiting import wait_until

METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE"]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Dials loopback."""
    async with open_transport(LOOPBACK) as transport:
        yield transport


async def asked(
    transport: Transport, url: str, method: str = "POST", body: bytes | None = b"body"
) -> Answer:
    """What comes of one request."""
    deadline = Deadlines().at(time.monotonic() + 60)
    return await transport.send(method, URL(url), {}, body, deadline)


async def send(transport: Transport, method: str, port: int) -> int:
    """Its status, when its answer is read."""
    body = None if method == "GET" else b"body"
    answer = await asked(transport, f"http://127.0.0.1:{port}/", method, body)
    await answer.content.read()
    answer.release()
    return answer.status


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("answered", [0, 1])
@pytest.mark.parametrize("method", METHODS)
async def test_a_request_whose_connection_drops_is_on_the_wire_once(
    transport: Transport, method: str, answered: int, reset: bool
) -> None:
    async with dropping(answered, reset=reset) as here:
        for _ in range(answered):
            assert await send(transport, method, here.port) == 200
        with pytest.raises((aiohttp.ServerDisconnectedError, OSError)):
            await send(transport, method, here.port)
    assert here.requests == [method] * (answered + 1)


async def test_a_connection_that_was_never_made_says_so(transport: Transport) -> None:
    async with dropping() as here:
        pass
    with pytest.raises(aiohttp.ClientConnectorError):
        await send(transport, "POST", here.port)


async def test_a_connection_that_ends_as_it_is_made_is_a_reset_one() -> None:
    class Ending(GuardedConnector):
        async def connect(self, *args: Any, **options: Any) -> Connection:
            connection = await super().connect(*args, **options)
            assert connection.transport is not None
            connection.transport.abort()
            await wait_until("its end", lambda: connection.transport is None)
            return connection

    async with dropping() as here, Ending(LOOPBACK) as connector:
        with pytest.raises(aiohttp.ClientConnectionResetError):
            await send(Transport(connector), "POST", here.port)
    assert here.requests == []


async def test_an_answer_that_nobody_asked_for_is_nobodys(transport: Transport) -> None:
    stray, sent = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\nbody"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                await stray.wait()
                writer.write(b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")
                sent.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await send(transport, "POST", port) == 200
        (pooled,) = transport._connector._conns.values()
        protocol = pooled[0][0]
        stray.set()
        await sent.wait()
        await wait_until("it is there", lambda: protocol.should_close)
        with pytest.raises(aiohttp.ClientConnectionResetError):
            await send(transport, "POST", port)
        assert await send(transport, "POST", port) == 200


async def test_heads_that_announce_another_are_passed_over(transport: Transport) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    async with raw_server(hints, late=b"HTTP/1.1 204 No Content\r\n\r\n") as url:
        answer = await asked(transport, url)
    assert answer.status == 204
    answer.close()


async def test_a_connection_with_half_a_request_on_it_is_not_used_again(
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
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(2):
            answer = await asked(transport, url, body=body)
            assert answer.status == 413
            answer.release()
        go.set()
        await wait_until("both ends", lambda: len(taken) == 2)
    assert max(taken) < len(body)  # the rest was not sent when the receiver went on reading
