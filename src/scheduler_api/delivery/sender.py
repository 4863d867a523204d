"""One attempt: build, sign, send, time, classify."""

import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from urllib.parse import quote

import aiohttp
import msgspec
import structlog
from yarl import URL

from scheduler_api import __version__
from scheduler_api.delivery.egress import Verdict, connector, guarding, no_hidden_resend
from scheduler_api.domain.destination import EgressRules
from scheduler_api.domain.message import EXCERPT_BYTES, Attempt
from scheduler_api.domain.moments import format_instant
from scheduler_api.domain.retry import parse_retry_after
from scheduler_api.domain.signing import sign
from scheduler_api.store.queue import Claimed

log = structlog.get_logger()

CONNECT_TIMEOUT: Final = 5.0  # seconds, of one address
RESPONSE_BYTES: Final = 64 * 1024  # read of an answer; then the connection is closed
_MS: Final = timedelta(milliseconds=1)
# What aiohttp would send a second time by itself; others are spared the middleware's cost.
_RESENT: Final = frozenset({"GET", "PUT", "DELETE"})
_NO_RESEND: Final = (no_hidden_resend,)
USER_AGENT: Final = f"scheduler-api/{__version__}"

# What an attempt without an answer is called; the first that fits.
_ERRORS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (TimeoutError, "timeout"),
    (aiohttp.ClientConnectorDNSError, "dns_error"),
    (aiohttp.ClientSSLError, "tls_error"),
    (aiohttp.ClientConnectorError, "connect_error"),
    (aiohttp.InvalidURL, "bad_request"),
    (aiohttp.ClientResponseError, "bad_response"),
    (aiohttp.ClientError, "disconnected"),
)


class Sent(msgspec.Struct, frozen=True):
    """An attempt, and how long its receiver asked to be left alone."""

    attempt: Attempt
    retry_after: timedelta | None = None


class Start(NamedTuple):
    """When an attempt began."""

    at: datetime  # by the clock of the message's store
    monotonic: float  # by this process's monotonic clock, seconds


class Sender:
    """Sends claimed messages over one session."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        timeout: timedelta,
        secrets: tuple[bytes, ...],
    ) -> None:
        self._session = session
        self._timeout = _client_timeout(timeout.total_seconds())
        self._secrets = secrets

    async def send(self, claimed: Claimed, start: Start) -> Sent:
        """Make one request, now; whatever happens is told in the attempt."""
        url = URL(claimed.url, encoded=True)
        with guarding(url.raw_host or "") as verdict:
            try:
                status, excerpt, retry_after = await self._request(url, claimed, start.at)
                error = None
            except Exception as caught:  # an attempt that fails is recorded, whatever the reason
                status, excerpt, retry_after = None, None, None
                error = _name(caught, verdict, claimed)
        attempt = self._attempt(claimed, start, status, error, excerpt)
        return Sent(attempt, parse_retry_after(retry_after, start.at))

    def cut_off(self, claimed: Claimed, start: Start) -> Sent:
        """The attempt of a request that we ended, as the process stops."""
        return Sent(self._attempt(claimed, start, None, "shutdown", None))

    def _attempt(
        self,
        claimed: Claimed,
        start: Start,
        status: int | None,
        error: str | None,
        excerpt: str | None,
    ) -> Attempt:
        return Attempt(
            number=claimed.attempts + 1,
            started_at=start.at,
            duration_ms=int((time.monotonic() - start.monotonic) * 1000),
            status=status,
            error=error,
            response_excerpt=excerpt,
            lateness_ms=(start.at - max(claimed.due_at, claimed.created_at)) // _MS,
        )

    async def _request(
        self, url: URL, claimed: Claimed, at: datetime
    ) -> tuple[int, str | None, str | None]:
        spec = claimed.spec
        own = spec.timeout_ms
        async with self._session.request(
            spec.method,
            url,
            # As a payload at once: aiohttp would look for the kind of the bytes.
            data=None if spec.body is None else aiohttp.BytesPayload(spec.body),
            headers=self._headers(claimed, at),
            timeout=self._timeout if own is None else _client_timeout(own / 1000),
            allow_redirects=False,
            middlewares=_NO_RESEND if spec.method in _RESENT else (),
        ) as response:
            excerpt = await _excerpt(response)
            return response.status, excerpt, response.headers.get("Retry-After")

    def _headers(self, claimed: Claimed, at: datetime) -> dict[str, str]:
        spec = claimed.spec
        webhook_id, timestamp = claimed.webhook_id, int(at.timestamp())
        headers = {"User-Agent": USER_AGENT, "Idempotency-Key": webhook_id}
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


# Visible ASCII but the percent sign.
_VISIBLE: Final = "".join(map(chr, range(0x21, 0x7F))).replace("%", "")
_all_visible: Final = re.compile(f"[{re.escape(_VISIBLE)}]*").fullmatch


def _header_value(message_id: str) -> str:
    """An id of visible ASCII as it is, others percent-encoded."""
    return message_id if _all_visible(message_id) else quote(message_id, safe=_VISIBLE)


@asynccontextmanager
async def open_session(rules: EgressRules, slots: int) -> AsyncIterator[aiohttp.ClientSession]:
    """The session of a Sender: guarded, without cookies, proxies, decompression or resending."""
    async with aiohttp.ClientSession(
        connector=connector(rules, limit=slots),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept-Encoding", "Content-Type"),
        trust_env=False,
        auto_decompress=False,
    ) as session:
        yield session


def _client_timeout(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_TIMEOUT))


def _override(headers: dict[str, str], given: dict[str, str]) -> None:
    """What the caller gave wins over our own; names are compared without case."""
    names = {name.lower() for name in given}
    for name in [name for name in headers if name.lower() in names]:
        del headers[name]
    headers.update(given)


async def _excerpt(response: aiohttp.ClientResponse) -> str | None:
    """The beginning of the body; the status stands, however the body ends."""
    kept, size = b"", 0
    try:
        while chunk := await response.content.readany():
            kept += chunk[: EXCERPT_BYTES - len(kept)]
            size += len(chunk)
            if size > RESPONSE_BYTES:
                response.close()
                break
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()
    return kept.decode(errors="replace") if kept else None


def _name(error: Exception, verdict: Verdict, claimed: Claimed) -> str:
    if verdict.refusal:
        log.warning("egress_denied", message_id=claimed.id, reason=verdict.refusal)
        return "egress_denied"
    for kind, name in _ERRORS:
        if isinstance(error, kind):
            return name
    log.error("attempt_broke", message_id=claimed.id, exc_info=error)
    return "internal_error"
