"""Requests on the wire: each exactly once."""

import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from scheduler_api.delivery.deadlines import Deadlines
from scheduler_api.delivery.transport import Transport, open_transport
from tests.support.dropping import dropping
from tests.support.factories import LOOPBACK

METHODS = ["POST", "GET", "PUT", "PATCH", "DELETE"]


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """Dials loopback."""
    async with open_transport(LOOPBACK) as transport:
        yield transport


async def send(transport: Transport, method: str, port: int) -> int:
    """Its status, when its answer is read."""
    body = None if method == "GET" else b"body"
    deadline = Deadlines().at(time.monotonic() + 60)
    response = await transport.send(method, URL(f"http://127.0.0.1:{port}/"), {}, body, deadline)
    await response.read()
    return response.status


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
