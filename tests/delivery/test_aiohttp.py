"""What is used of aiohttp that it does not document: one list, with the reason of each."""

import asyncio
import inspect
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import connector as connector_module
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from yarl import URL

from scheduler_api.delivery.egress import GuardedConnector
from tests.support.factories import LOOPBACK

CONNECTOR = {
    "_factory": "transport.py sets it, so that ResponseProtocol reads the answers",
    "_conns": "transport.py drops a destination's idle connections after one that ended unanswered",
}
PROTOCOL = {
    "_loop": "protocol.py makes a future of it",
    "_parser": "protocol.py leaves to aiohttp what aiohttp has asked itself",
    "transport": "protocol.py writes to it; None once the connection is lost",
    "should_close": "protocol.py extends it: the connector asks before it keeps a connection",
    "is_connected": "the connector asks before it gives a kept connection",
    "abort": "protocol.py ends a connection on which nobody waits for bytes",
    "connection_lost": "protocol.py extends it: the answer ends there",
}
CONNECTION = {
    "protocol": "transport.py exchanges request and answer over it",
    "transport": "transport.py asks it what has not been sent yet",
    "release": "transport.py keeps the connection",
    "close": "transport.py ends it",
}
MODULE = {"_SSL_CONTEXT_VERIFIED": "tests replace it by one that trusts their authority"}


@pytest.fixture
async def connector() -> AsyncIterator[aiohttp.BaseConnector]:
    """One as the transport has it."""
    async with GuardedConnector(LOOPBACK) as one:
        yield one


async def test_what_is_used_of_aiohttp_is_there(connector: aiohttp.BaseConnector) -> None:
    loop = asyncio.get_running_loop()
    used = [
        (connector, CONNECTOR),
        (ResponseHandler(loop), PROTOCOL),
        (Connection, CONNECTION),
        (connector_module, MODULE),
    ]
    gone = [
        f"{name}: {why}"
        for owner, names in used
        for name, why in names.items()
        if not hasattr(owner, name)
    ]
    assert gone == [], "aiohttp has changed inside; adapt what uses it"


async def test_the_connector_is_asked_as_it_wants_to_be(connector: aiohttp.BaseConnector) -> None:
    inspect.signature(connector.connect).bind(None, traces=[], timeout=aiohttp.ClientTimeout())
    request = aiohttp.ClientRequest("GET", URL("http://h:1"), loop=asyncio.get_running_loop())
    assert (request.connection_key.host, request.connection_key.port) == ("h", 1)
