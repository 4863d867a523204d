"""Puts a request on the wire and reads the answer.

aiohttp's connector and pool without its ClientSession, which would also follow redirects, keep
cookies, read proxies from the environment and send some methods a second time, and without its
request and response: they and the session are half of what sending costs.

A request is sent a second time in one case only: a kept connection ended without an answer, as it
does when its receiver closes it at that moment. A new connection then carries the same attempt.
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
from scheduler_api.delivery.http.egress import CONNECTIONS, GuardedConnector, trusting
from scheduler_api.delivery.http.proxy import WRONG_LOGIN, ProxiedConnector, Proxy, ProxyError
from scheduler_api.delivery.http.request import serialized
from scheduler_api.delivery.http.resolver import RESOLVE_TIMEOUT
from scheduler_api.delivery.http.response import ResponseReader
from scheduler_api.domain.egress import EgressRules

CONNECT_TIMEOUT: Final = 5.0  # seconds, of addresses that are dialled together, with TLS
ORIGINS_KNOWN: Final = 1024

_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None,
    connect=RESOLVE_TIMEOUT + CONNECT_TIMEOUT,  # as often as one address after the other is silent
    sock_connect=CONNECT_TIMEOUT,
)


class BadResponse(Exception):
    """What came back is no HTTP."""


class Transport:
    """One way out for all requests; connections are kept for a while."""

    def __init__(self, connector: aiohttp.BaseConnector, proxy: Proxy | None = None) -> None:
        """`proxy`: of a ProxiedConnector."""
        self._connector = connector
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        protocol: partial[Any] = partial(ResponseProtocol, loop=self._loop)
        connector._factory = protocol
        self._dialling = lru_cache(ORIGINS_KNOWN)(self._dial)

    async def send(
        self,
        method: str,
        url: URL,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> ResponseReader:
        """The answer: a status, and as much of its body as came by the deadline.

        Raises: aiohttp.ClientError, ProxyError, BadResponse, OSError, ValueError; of these
        ConnectionTimeoutError if there is no connection in time, TimeoutError if no answer has come
        by the deadline.
        """
        absolute = self._proxy is not None and url.scheme == "http"
        if self._proxy is not None and absolute:
            target, headers = self._proxy.in_absolute_form(url, target, headers)
        data = serialized(method, url, target, headers, body)
        dialling = self._dialling(url.origin())
        reader = ResponseReader()
        connection: Connection | None = None
        try:
            with deadline:
                connection = await self._connect(dialling)
                while not await _answered(connection, data, reader):
                    connection, reader = None, ResponseReader()
                    self._forget_idle(dialling)  # so that the next one is new
                    connection = await self._connect(dialling)
        except TimeoutError as error:
            if connection is None:
                raise aiohttp.ConnectionTimeoutError(f"no connection to {url.host}") from error
            if reader.status is None:
                raise
        if reader.status is None:
            raise BadResponse if reader.invalid else aiohttp.ServerDisconnectedError
        if absolute and reader.status == WRONG_LOGIN:
            raise ProxyError(f"it answered with {WRONG_LOGIN}")
        return reader

    def waits_for_lookup(self, host: str) -> bool:
        """Whether a lookup of that name has not begun."""
        connector = self._connector
        return isinstance(connector, GuardedConnector) and connector.waits_for_lookup(host)

    def _connect(self, dialling: aiohttp.ClientRequest) -> Awaitable[Connection]:
        return self._connector.connect(dialling, traces=[], timeout=_TIMEOUT)

    def _forget_idle(self, dialling: aiohttp.ClientRequest) -> None:
        for protocol, _ in self._connector._conns.pop(dialling.connection_key, ()):
            protocol.close()

    def _dial(self, origin: URL) -> aiohttp.ClientRequest:
        """What the connector reads from a request: where to, and whether by TLS."""
        if self._proxy is None:
            return aiohttp.ClientRequest("GET", origin, loop=self._loop)
        url, login = self._proxy
        # They are part of the pool's key: with the Host that aiohttp would add, and change the key.
        headers = CIMultiDict({**login, "Host": origin.host_port_subcomponent or ""})
        return aiohttp.ClientRequest(
            "GET", origin, loop=self._loop, proxy=url, proxy_headers=headers
        )


async def _answered(connection: Connection, data: bytes, reader: ResponseReader) -> bool:
    """Send a request and read what comes; False if a kept connection ended without an answer.

    408 is no answer there: some servers say so as they close an idle connection (RFC 9110, section
    15.5.9).
    """
    protocol = connection.protocol
    assert isinstance(protocol, ResponseProtocol)  # noqa: S101  until it is released
    reused, protocol.used = protocol.used, True
    try:
        await protocol.exchange(data, reader)
    finally:
        _let_go(connection, reader)
    if not reused or reader.reusable:
        return True
    return reader.started and reader.status != 408


def _let_go(connection: Connection, reader: ResponseReader) -> None:
    """Keep the connection for the next request, if all of the answer has come.

    And all of the request has gone: a receiver may answer without having read it. (Over TLS only
    what is not yet encrypted counts as not gone.)
    """
    transport = connection.transport
    if transport is not None and (not reader.complete or transport.get_write_buffer_size()):
        # At once: a close would wait for a receiver that takes nothing of what is still to be sent.
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
    connections: int = CONNECTIONS,
) -> AsyncIterator[Transport]:
    """A transport that dials what `rules` allow; `proxy` and `ca_file`: as in the settings.

    `connections`: how many may be open, those that are kept included.
    """
    trust = trusting(ca_file) if ca_file else None
    kind = ProxiedConnector if proxy else GuardedConnector
    async with kind(rules, trust, connections=connections) as connector:
        yield Transport(connector, Proxy.parse(proxy) if proxy else None)
