"""Requests through an HTTP proxy: plain ones in absolute form, TLS in a tunnel (CONNECT).

The addresses of each destination are checked here first. The proxy gets the name and resolves it
again: many proxies decide and log by names, and a plain request cannot carry an address, because
a proxy derives the Host field from the target.
"""

import base64
import errno
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

from scheduler_api.delivery.http.egress import (
    EgressReport,
    GuardedConnector,
    current_report,
    out_of_sockets,
)
from scheduler_api.delivery.http.resolver import LookupQueueFull

AUTH_REQUIRED: Final = 407  # only proxies respond with it, receivers do not


class ProxyError(Exception):
    """The proxy cannot be reached, or refuses; unrelated to the destination."""


class Proxy(NamedTuple):
    """The address of the proxy, and our login there."""

    url: URL  # without the login
    headers: dict[str, str]  # of each plain request and each CONNECT

    @classmethod
    def parse(cls, text: str) -> Self:
        """From EGRESS_PROXY, http://USER:PASSWORD@HOST:PORT, as checked by the settings."""
        url = URL(text)
        if url.user is None:
            return cls(url.origin(), {})
        login = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        return cls(url.origin(), {"Proxy-Authorization": f"Basic {login}"})

    def in_absolute_form(
        self, url: URL, target: str, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        """Target and headers of a plain request to the proxy."""
        return f"http://{url.host_port_subcomponent}{target}", {**headers, **self.headers}


class ProxiedConnector(GuardedConnector):
    """Connects to the proxy; for TLS, through it to the destination."""

    def _check(self, report: EgressReport, address: str, port: int) -> None:
        """Allow all: the only address is the proxy's, which may be private."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        await self._check_destination(req)
        try:
            return await super()._create_connection(req, traces, timeout)
        except aiohttp.ClientHttpProxyError as error:
            raise ProxyError(f"it answered CONNECT with {error.status}") from error
        except aiohttp.ClientProxyConnectionError as error:
            raise ProxyError(f"it cannot be reached: {error.os_error}") from error
        except aiohttp.ClientConnectorError:  # the destination's, at the other end of the tunnel
            raise
        except (aiohttp.ClientError, HttpProcessingError) as error:
            raise ProxyError("it did not answer CONNECT") from error

    async def _create_direct_connection(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,
        **options: Any,
    ) -> Any:
        """Connect to the proxy; make its DNS errors and timeouts errors of the proxy."""
        try:
            return await super()._create_direct_connection(req, traces, timeout, **options)
        except (aiohttp.ClientConnectorDNSError, TimeoutError) as error:
            if isinstance(error.__cause__, LookupQueueFull) or out_of_sockets():
                raise  # no name server was asked: this is no attempt
            reason = OSError(errno.EHOSTUNREACH, str(error) or "no answer in time")
            raise aiohttp.ClientProxyConnectionError(req.connection_key, reason) from error

    async def _check_destination(self, req: aiohttp.ClientRequest) -> None:
        """Allow the destination if all its addresses are: the proxy chooses among them."""
        host, port = req.url.raw_host or "", req.url.port or 0
        try:
            found = await self._resolve_host(host, port)
        except OSError as error:
            raise aiohttp.ClientConnectorDNSError(req.connection_key, error) from error
        report = current_report()
        for one in found:
            if refusal := self._rules.refusal(one["host"], port, report.host):
                report.refusal = refusal
                reason = PermissionError(errno.EACCES, refusal)
                raise aiohttp.ClientConnectorError(req.connection_key, reason)
