"""Puts a request on the wire, exactly once; asked by the sender.

aiohttp's connector, pool and parser without its ClientSession, which would also follow redirects,
keep cookies, read proxies from the environment and send some methods a second time, and without its
request and response: they and the session are half of what sending costs.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from multidict import CIMultiDictProxy
from yarl import URL

from scheduler_api.delivery.deadlines import Deadline
from scheduler_api.delivery.egress import RESOLVE_TIMEOUT, GuardedConnector
from scheduler_api.delivery.request import serialized
from scheduler_api.domain.destination import EgressRules

CONNECT_TIMEOUT: Final = 5.0  # seconds, of addresses that are dialled together, with TLS
ORIGINS_KNOWN: Final = 1024

_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None,
    connect=RESOLVE_TIMEOUT + CONNECT_TIMEOUT,  # as often as one address after the other is silent
    sock_connect=CONNECT_TIMEOUT,
)
_NO_TIMER: Final = TimerNoop()  # the whole request's time is up to the caller


class Answer:
    """What came back: the head; the body is to be read from `content`, then let go."""

    __slots__ = ("_connection", "content", "headers", "status")

    def __init__(
        self,
        connection: Connection,
        status: int,
        headers: CIMultiDictProxy[str],
        content: aiohttp.StreamReader,
    ) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers
        self.content = content

    def release(self) -> None:
        """Keep the connection for the next request, if all of the body has come.

        And all of the request has gone: a receiver may answer without having read it. (Over TLS
        only what is not yet encrypted counts as not gone.)
        """
        transport = self._connection.transport
        if transport is not None and transport.get_write_buffer_size():
            _hang_up(self._connection)
        else:
            self._connection.release()

    def close(self) -> None:
        """Read no more."""
        _hang_up(self._connection)


class Transport:
    """One way out for all requests; connections are kept for a while."""

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()
        self._dialling = lru_cache(ORIGINS_KNOWN)(self._dial)

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> Answer:
        """The answer as soon as its head has come.

        Raises: aiohttp.ClientError, HttpProcessingError, OSError, ValueError; of these
        ConnectionTimeoutError if there is no connection in time, TimeoutError if no answer has come
        by the deadline.
        """
        data = serialized(method, url, headers, body)
        connection: Connection | None = None
        try:
            with deadline:
                dialling = self._dialling(url.origin())
                connection = await self._connector.connect(dialling, traces=[], timeout=_TIMEOUT)
                return await _exchange(connection, data)
        except BaseException as error:
            if connection is not None:
                _hang_up(connection)
            elif isinstance(error, TimeoutError):
                raise aiohttp.ConnectionTimeoutError(f"no connection to {url.host}") from error
            raise

    def _dial(self, origin: URL) -> aiohttp.ClientRequest:
        """What the connector reads from a request: where to, and whether by TLS."""
        return aiohttp.ClientRequest("GET", origin, loop=self._loop)


async def _exchange(connection: Connection, data: bytes) -> Answer:
    protocol = connection.protocol
    assert protocol is not None  # noqa: S101  until it is released
    # Closing, too, is what has an answer on it that nobody asked for: it would be taken for ours.
    if protocol.transport is None or protocol.should_close:
        raise aiohttp.ClientConnectionResetError("the connection is of no use any more")
    protocol.set_response_params(timer=_NO_TIMER, read_until_eof=True, auto_decompress=False)
    protocol.transport.write(data)
    while True:
        head, content = await protocol.read()
        if not 100 <= head.code < 200 or head.code == 101:  # the others announce another head
            return Answer(connection, head.code, head.headers, content)


def _hang_up(connection: Connection) -> None:
    """At once: a close would wait for a receiver that takes nothing of what is still to be sent."""
    if connection.transport is not None:
        connection.transport.abort()
    connection.close()


@asynccontextmanager
async def open_transport(rules: EgressRules) -> AsyncIterator[Transport]:
    """A transport that dials what `rules` allow."""
    async with GuardedConnector(rules) as connector:
        yield Transport(connector)
