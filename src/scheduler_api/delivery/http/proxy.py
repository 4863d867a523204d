"""Requests by way of an HTTP proxy: plain ones in absolute form, TLS in a tunnel (CONNECT).

The addresses of each destination are judged here before the proxy is asked. The proxy is given the
name and resolves it again: many proxies decide and log by names, and an address could not be put
into a plain request, whose Host field a proxy makes from the target.
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
    GuardedConnector,
    Verdict,
    current_verdict,
    out_of_sockets,
)
from scheduler_api.delivery.http.resolver import NeverBegan

WRONG_LOGIN: Final = 407  # what a proxy answers, and no receiver


class ProxyError(Exception):
    """The proxy cannot be reached, or refuses; this says nothing about the destination."""


class Proxy(NamedTuple):
    """Where the proxy is, and our login there."""

    url: URL  # without the login
    headers: dict[str, str]  # that it gets with each plain request and each CONNECT

    @classmethod
    def parse(cls, text: str) -> Self:
        """From EGRESS_PROXY, http://USER:PASSWORD@HOST:PORT, which the settings have checked."""
        url = URL(text)
        if url.user is None:
            return cls(url.origin(), {})
        login = base64.b64encode(f"{url.user}:{url.password or ''}".encode()).decode()
        return cls(url.origin(), {"Proxy-Authorization": f"Basic {login}"})

    def in_absolute_form(
        self, url: URL, target: str, headers: Mapping[str, str]
    ) -> tuple[str, Mapping[str, str]]:
        """The target and the headers of a plain request as the proxy wants them."""
        return f"http://{url.host_port_subcomponent}{target}", {**headers, **self.headers}


class ProxiedConnector(GuardedConnector):
    """Connects to the proxy for every request, and by tunnel to a destination with TLS."""

    def _judge(self, verdict: Verdict, address: str, port: int) -> None:
        """The only addresses that are dialled are the proxy's, which may be private."""

    async def _create_connection(
        self, req: aiohttp.ClientRequest, traces: list[Any], timeout: aiohttp.ClientTimeout
    ) -> ResponseHandler:
        await self._judge_destination(req)
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
        """To the proxy: its name may be wrong, or nobody may answer there."""
        try:
            return await super()._create_direct_connection(req, traces, timeout, **options)
        except (aiohttp.ClientConnectorDNSError, TimeoutError) as error:
            if isinstance(error.__cause__, NeverBegan) or out_of_sockets():
                raise  # nobody was asked for the name: no attempt
            reason = OSError(errno.EHOSTUNREACH, str(error) or "no answer in time")
            raise aiohttp.ClientProxyConnectionError(req.connection_key, reason) from error

    async def _judge_destination(self, req: aiohttp.ClientRequest) -> None:
        """Let all addresses through or none: the proxy chooses among them."""
        host, port = req.url.raw_host or "", req.url.port or 0
        try:
            found = await self._resolve_host(host, port)
        except OSError as error:
            raise aiohttp.ClientConnectorDNSError(req.connection_key, error) from error
        verdict = current_verdict()
        for one in found:
            if refusal := self._rules.refusal(one["host"], port, verdict.host):
                verdict.refusal = refusal
                reason = PermissionError(errno.EACCES, refusal)
                raise aiohttp.ClientConnectorError(req.connection_key, reason)
