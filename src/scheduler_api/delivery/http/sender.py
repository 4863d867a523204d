"""One attempt: build the request, sign it, send it, measure it, name its error."""

import re
import time
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from yarl import URL

from scheduler_api import __version__
from scheduler_api.delivery.http.deadlines import Deadline, Deadlines
from scheduler_api.delivery.http.egress import EgressReport, out_of_sockets
from scheduler_api.delivery.http.proxy import ProxyError
from scheduler_api.delivery.http.request import request_target
from scheduler_api.delivery.http.resolver import LookupQueueFull
from scheduler_api.delivery.http.response import ResponseReader
from scheduler_api.delivery.http.transport import BadResponse, Transport
from scheduler_api.domain.attempt import LOCATION_CHARACTERS, Attempt, ErrorWord
from scheduler_api.domain.duration import milliseconds
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.retry import parse_retry_after
from scheduler_api.domain.signing import sign
from scheduler_api.store.claims import Claimed

log = structlog.get_logger()

# Headers of every request, unless the message has its own.
_DEFAULT_HEADERS: Final = {
    "User-Agent": f"scheduler-api/{__version__}",
    "Accept": "*/*",
    "Accept-Encoding": "identity",
}

# The error word of an attempt without a response; the first class that fits.
_ERRORS: Final[tuple[tuple[type[BaseException], ErrorWord], ...]] = (
    (ProxyError, "proxy_error"),
    (aiohttp.ConnectionTimeoutError, "connect_timeout"),
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "dns_error"),
    (aiohttp.ClientSSLError, "tls_error"),
    (aiohttp.ClientConnectorError, "connect_error"),
    (aiohttp.InvalidURL, "bad_request"),
    (BadResponse, "bad_response"),
    (aiohttp.ClientError, "disconnected"),
    (OSError, "disconnected"),
)


class NothingSent(Exception):
    """No request was made, because this machine has no free socket: this is no attempt."""


class LookupPostponed(NothingSent):
    """No request was made, because too many other names are being looked up."""


class Sent(msgspec.Struct, frozen=True):
    """An attempt, and the Retry-After of its response."""

    attempt: Attempt
    retry_after: timedelta | None = None


class AttemptStart(NamedTuple):
    """When an attempt started."""

    at: datetime  # by the clock of the message's store
    monotonic: float  # by this process's monotonic clock, seconds


class Sender:
    """Sends claimed messages over one transport."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: timedelta,
        secrets: tuple[bytes, ...],
    ) -> None:
        self._transport = transport
        self._deadlines = Deadlines()
        self._timeout = timeout.total_seconds()
        self._secrets = secrets

    async def send(self, claimed: Claimed, start: AttemptStart) -> Sent:
        """Make one request, now; the attempt has its result. Raises: NothingSent."""
        url = URL(claimed.url, encoded=True)
        with EgressReport(url.raw_host or "") as report:
            try:
                response = await self._request(url, claimed, start)
            except Exception as caught:  # every failed attempt is recorded
                return Sent(self._failed(caught, report, claimed, start))
        attempt = self._attempt(claimed, start, response, None)
        if not response.status or response.status < 400:
            return Sent(attempt)
        return Sent(attempt, parse_retry_after(response.header("retry-after"), start.at))

    def _failed(
        self, error: Exception, report: EgressReport, claimed: Claimed, start: AttemptStart
    ) -> Attempt:
        try:
            if _lookup_was_postponed(error, report, self._transport):
                raise LookupPostponed from error
            if _nothing_sent(error, report):
                raise NothingSent from error
            return self._attempt(claimed, start, None, _error_word(error, report, claimed))
        finally:
            _forget_frames(error)

    def cut_off(self, claimed: Claimed, start: AttemptStart) -> Sent:
        """The attempt of a request that was cut off because the process stops."""
        return Sent(self._attempt(claimed, start, None, "shutdown"))

    def _attempt(
        self,
        claimed: Claimed,
        start: AttemptStart,
        response: ResponseReader | None,
        error: ErrorWord | None,
    ) -> Attempt:
        status, excerpt, location = None, None, None
        if response:
            status, excerpt = response.status, response.excerpt
            if status and 300 <= status < 400:  # not followed
                location = (response.header("location") or "")[:LOCATION_CHARACTERS] or None
        return Attempt(
            number=claimed.attempts + 1,
            started_at=start.at,
            duration_ms=int((time.monotonic() - start.monotonic) * 1000),
            status=status,
            error=error,
            response_excerpt=excerpt,
            lateness_ms=milliseconds(start.at - max(claimed.due_at, claimed.created_at)),
            location=location,
        )

    async def _request(self, url: URL, claimed: Claimed, start: AttemptStart) -> ResponseReader:
        spec, deadline = claimed.spec, self._deadline(claimed, start)
        headers = self._headers(claimed, start.at)
        target = request_target(claimed.url)
        return await self._transport.send(spec.method, url, target, headers, spec.body, deadline)

    def _deadline(self, claimed: Claimed, start: AttemptStart) -> Deadline:
        own = claimed.spec.timeout
        return self._deadlines.at(start.monotonic + (self._timeout if own is None else own))

    def _headers(self, claimed: Claimed, at: datetime) -> dict[str, str]:
        spec = claimed.spec
        webhook_id, timestamp = claimed.webhook_id, int(at.timestamp())
        headers = _DEFAULT_HEADERS | {"Idempotency-Key": webhook_id}
        if spec.body is not None:
            headers["Content-Type"] = spec.content_type
        if spec.headers:
            _override(headers, spec.headers)
        headers["webhook-id"] = webhook_id
        headers["webhook-timestamp"] = str(timestamp)
        if self._secrets:
            body = spec.body or b""
            headers["webhook-signature"] = sign(self._secrets, webhook_id, timestamp, body)
        headers["Scheduler-Message-Id"] = _header_value(claimed.id)
        headers["Scheduler-Attempt"] = str(claimed.attempts + 1)
        headers["Scheduler-Scheduled-For"] = format_instant(claimed.scheduled_at)
        return headers


# Visible ASCII except the percent sign.
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_all_visible: Final = re.compile(f"[{re.escape(_VISIBLE)}]*").fullmatch


def _header_value(message_id: str) -> str:
    """An id of visible ASCII unchanged, others percent-encoded."""
    return message_id if _all_visible(message_id) else quote(message_id, safe=_VISIBLE)


def _override(headers: dict[str, str], given: dict[str, str]) -> None:
    """Let the headers of the message replace ours; names are compared without case."""
    names = {name.lower() for name in given}
    for name in [name for name in headers if name.lower() in names]:
        del headers[name]
    headers.update(given)


def _forget_frames(error: BaseException) -> None:
    """Remove the tracebacks of an error and its causes.

    Their frames hold the request. A task or a reference cycle in aiohttp that holds the error
    (aio-libs/aiohttp#6408) would keep the request until the garbage collector runs: that is seldom.
    """
    errors: list[BaseException | None] = [error]
    while errors:
        one = errors.pop()
        if one is not None and one.__traceback__ is not None:
            one.__traceback__ = None
            errors += [one.__cause__, one.__context__]


def _lookup_was_postponed(error: Exception, report: EgressReport, transport: Transport) -> bool:
    """Whether it failed before a name server was asked for the host."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return isinstance(error.os_error, LookupQueueFull)
    timed_out = isinstance(error, aiohttp.ConnectionTimeoutError)
    return timed_out and not report.allowed and transport.waits_for_lookup(report.host)


def _nothing_sent(error: Exception, report: EgressReport) -> bool:
    """Whether it failed because no socket was free; an error of the resolver does not show that."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return out_of_sockets()
    return report.out_of_sockets and not report.opened


def _error_word(error: Exception, report: EgressReport, claimed: Claimed) -> ErrorWord:
    if report.refusal:
        log.warning("egress_denied", message_id=claimed.id, reason=report.refusal)
        return "egress_denied"
    if isinstance(error, ProxyError):
        log.warning("proxy_failed", message_id=claimed.id, reason=str(error))
    for kind, name in _ERRORS:
        if isinstance(error, kind):
            return name
    log.error("attempt_error", message_id=claimed.id, exc_info=error)
    return "internal_error"
