"""Sends a request and reads the response.

Uses aiohttp's connector and pool, without its ClientSession, which follows redirects, keeps
cookies, reads proxies from the environment and repeats some methods (aio-libs/aiohttp#10790), and
without its request and response objects: with the session, they are half of the cost of sending.

A request is sent again in one case only: a reused connection ended without a response, as it does
when the receiver closes it at that moment. A new connection then carries the same attempt.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp.connector import Connection
from multidict import CIMultiDict
from yarl import URL

from scheduler_api.delivery.http.client_protocol import ResponseProtocol
from scheduler_api.delivery.http.deadlines import Deadline
from scheduler_api.delivery.http.egress import MAX_CONNECTIONS, GuardedConnector, trust_with
from scheduler_api.delivery.http.proxy import AUTH_REQUIRED, ProxiedConnector, Proxy, ProxyError
from scheduler_api.delivery.http.request import serialize
from scheduler_api.delivery.http.resolver import RESOLVE_TIMEOUT
from scheduler_api.delivery.http.response import ResponseReader
from scheduler_api.domain.egress import EgressRules

CONNECT_TIMEOUT: Final = 5.0  # seconds, for a group of addresses that is tried together, with TLS
MAX_ORIGINS: Final = 1024  # whose connector arguments are cached

_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None,
    connect=RESOLVE_TIMEOUT + CONNECT_TIMEOUT,  # of the name and all its addresses
    sock_connect=CONNECT_TIMEOUT,  # of each group of addresses
)


class BadResponse(Exception):
    """The response is not HTTP."""


class Transport:
    """Sends all requests of a process; keeps idle connections for a while."""

    def __init__(self, connector: aiohttp.BaseConnector, proxy: Proxy | None = None) -> None:
        """`proxy`: if `connector` is a ProxiedConnector."""
        self._connector = connector
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        protocol: partial[Any] = partial(ResponseProtocol, loop=self._loop)
        connector._factory = protocol  # see client_protocol.py
        self._origin_request = lru_cache(MAX_ORIGINS)(self._request_to)

    async def send(
        self,
        method: str,
        url: URL,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> ResponseReader:
        """Send it → the response: a status, and as much of its body as arrived by the deadline.

        Raises: aiohttp.ClientError, ProxyError, BadResponse, OSError, ValueError; of these
        ConnectionTimeoutError if there is no connection in time, TimeoutError if no status has
        arrived by the deadline.
        """
        absolute = self._proxy is not None and url.scheme == "http"
        if self._proxy is not None and absolute:
            target, headers = self._proxy.in_absolute_form(url, target, headers)
        data = serialize(method, url, target, headers, body)
        origin = self._origin_request(url.origin())
        reader = ResponseReader()
        connection: Connection | None = None
        try:
            with deadline:
                connection = await self._connect(origin)
                while not await _exchange(connection, data, reader):
                    connection, reader = None, ResponseReader()
                    self._close_idle(origin)  # so that the next one is new
                    connection = await self._connect(origin)
        except TimeoutError as error:
            if connection is None:
                raise aiohttp.ConnectionTimeoutError(f"no connection to {url.host}") from error
            if reader.status is None:
                raise
        if reader.status is None:
            raise BadResponse if reader.invalid else aiohttp.ServerDisconnectedError
        if absolute and reader.status == AUTH_REQUIRED:
            raise ProxyError(f"it answered with {AUTH_REQUIRED}")
        return reader

    def waits_for_lookup(self, host: str) -> bool:
        """Whether a lookup of that name has not begun."""
        connector = self._connector
        return isinstance(connector, GuardedConnector) and connector.waits_for_lookup(host)

    def _connect(self, origin: aiohttp.ClientRequest) -> Awaitable[Connection]:
        return self._connector.connect(origin, traces=[], timeout=_TIMEOUT)

    def _close_idle(self, origin: aiohttp.ClientRequest) -> None:
        # No documented call closes the idle connections to one origin; we know of no issue for it.
        for protocol, _ in self._connector._conns.pop(origin.connection_key, ()):
            protocol.close()

    def _request_to(self, origin: URL) -> aiohttp.ClientRequest:
        """The request as the connector wants it: it reads the origin and whether to use TLS."""
        if self._proxy is None:
            return aiohttp.ClientRequest("GET", origin, loop=self._loop)
        url, login = self._proxy
        # The headers are part of the pool's key. `Host` is given, as aiohttp would add it later and
        # so change the key.
        headers = CIMultiDict({**login, "Host": origin.host_port_subcomponent or ""})
        return aiohttp.ClientRequest(
            "GET", origin, loop=self._loop, proxy=url, proxy_headers=headers
        )


async def _exchange(connection: Connection, data: bytes, reader: ResponseReader) -> bool:
    """Send a request and read the response; False if a reused connection ended without one.

    408 does not count there: some servers send it when they close an idle connection (RFC 9110,
    section 15.5.9).
    """
    protocol = connection.protocol
    assert isinstance(protocol, ResponseProtocol)  # noqa: S101  until it is released
    reused, protocol.used = protocol.used, True
    try:
        await protocol.exchange(data, reader)
    finally:
        _release(connection, reader)
    if not reused or reader.reusable:
        return True
    return reader.started and reader.status != 408


def _release(connection: Connection, reader: ResponseReader) -> None:
    """Keep the connection if the response is complete and the whole request was sent.

    A receiver may respond before it has read the request. (Over TLS, encrypted bytes count as
    sent.)
    """
    transport = connection.transport
    if transport is not None and (not reader.complete or transport.get_write_buffer_size()):
        # Not `close` alone: it would wait for a receiver that does not read the rest.
        transport.abort()
        connection.close()
    else:
        connection.release()


@asynccontextmanager
async def open_transport(
    rules: EgressRules,
    proxy: str = "",
    ca_file: Path | None = None,
    *,
    max_connections: int = MAX_CONNECTIONS,
) -> AsyncIterator[Transport]:
    """A transport that connects to what `rules` allow; `proxy` and `ca_file`: as in the settings.

    `max_connections`: open and idle ones together.
    """
    trust = trust_with(ca_file) if ca_file else None
    kind = ProxiedConnector if proxy else GuardedConnector
    async with kind(rules, trust, max_connections=max_connections) as connector:
        yield Transport(connector, Proxy.parse(proxy) if proxy else None)
