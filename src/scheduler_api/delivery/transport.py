"""Puts a request on the wire, exactly once; asked by the sender.

aiohttp's connector, request and response without its ClientSession, which would also follow
redirects, keep cookies, read proxies from the environment and send some methods a second time, and
whose own work is a quarter of what a request costs.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
from aiohttp import hdrs
from aiohttp.connector import Connection
from aiohttp.helpers import TimerNoop
from yarl import URL

from scheduler_api.delivery.deadlines import Deadline
from scheduler_api.delivery.egress import RESOLVE_TIMEOUT, GuardedConnector
from scheduler_api.domain.destination import EgressRules

CONNECT_TIMEOUT: Final = 5.0  # seconds, of addresses that are dialled together, with TLS

_TIMEOUT: Final = aiohttp.ClientTimeout(
    total=None,
    connect=RESOLVE_TIMEOUT + CONNECT_TIMEOUT,  # as often as one address after the other is silent
    sock_connect=CONNECT_TIMEOUT,
)
_NO_TIMER: Final = TimerNoop()  # the whole request's time is up to the caller
_NO_TYPE: Final = frozenset({hdrs.CONTENT_TYPE})  # what has no body has no type either


class Transport:
    """One way out for all requests; connections are kept for a while."""

    def __init__(self, connector: aiohttp.BaseConnector) -> None:
        self._connector = connector
        self._loop = asyncio.get_running_loop()

    async def send(
        self,
        method: str,
        url: URL,
        headers: Mapping[str, str],
        body: bytes | None,
        deadline: Deadline,
    ) -> aiohttp.ClientResponse:
        """The answer as soon as its head has come; its content is to be read, then released.

        Raises: aiohttp.ClientError, OSError; of these ConnectionTimeoutError if there is no
        connection in time, TimeoutError if no answer has come by the deadline.
        """
        request = aiohttp.ClientRequest(
            method,
            url,
            headers=headers,
            skip_auto_headers=_NO_TYPE if body is None else None,
            # As a payload at once: aiohttp would look for the kind of the bytes.
            data=None if body is None else aiohttp.BytesPayload(body),
            loop=self._loop,
            timer=_NO_TIMER,
        )
        connection = await self._connect(request, deadline)
        try:
            with deadline:
                return await _answer(request, connection)
        except BaseException:
            connection.close()
            raise

    async def _connect(self, request: aiohttp.ClientRequest, deadline: Deadline) -> Connection:
        try:
            with deadline:
                return await self._connector.connect(request, traces=[], timeout=_TIMEOUT)
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError(f"no connection to {request.host}") from error


async def _answer(request: aiohttp.ClientRequest, connection: Connection) -> aiohttp.ClientResponse:
    assert connection.protocol is not None  # noqa: S101  until it is released
    connection.protocol.set_response_params(
        timer=_NO_TIMER, read_until_eof=True, auto_decompress=False
    )
    response = await request.send(connection)
    try:
        return await response.start(connection)
    except BaseException:
        response.close()
        raise


@asynccontextmanager
async def open_transport(rules: EgressRules) -> AsyncIterator[Transport]:
    """A transport that dials what `rules` allow."""
    async with GuardedConnector(rules) as connector:
        yield Transport(connector)
