"""What follows an attempt: the message is delivered, retried or failed. Pure."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec

# Pause after the 1st, 2nd, … attempt, before jitter.
BACKOFF: tuple[timedelta, ...] = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=6),
)

# Attempts in all: the first and one after each pause.
MAX_ATTEMPTS = len(BACKOFF) + 1

# Largest part of a pause that is added or taken away, so that retries do not come in step.
JITTER = 0.2

# Longest wait that a destination may ask for.
RETRY_AFTER_CEILING = timedelta(hours=24)

# The three spellings of an HTTP date (RFC 9110, 5.6.7).
_HTTP_DATES = ("%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %d %H:%M:%S %Y")
_RETRY_AFTER_SECONDS = re.compile(r"[0-9]{1,10}")


class Delivered(msgspec.Struct, frozen=True):
    """The receiver accepted the message."""


class Retry(msgspec.Struct, frozen=True):
    """Another attempt follows."""

    delay: timedelta  # from now to the next attempt


class Failed(msgspec.Struct, frozen=True):
    """No further attempt follows."""


Decision = Delivered | Retry | Failed


def decide(
    number: int, status: int | None, retry_after: timedelta | None, jitter: float
) -> Decision:
    """What follows attempt `number` (1, 2, …) that got `status`; None: no response.

    `jitter` is random in [-1, 1]; `retry_after` is the value of that header.
    """
    if status is not None and 200 <= status <= 299:
        return Delivered()
    # 410: the receiver refuses further attempts. 404 is not final: n8n answers it while a workflow
    # is off.
    if status == 410 or number >= MAX_ATTEMPTS:
        return Failed()
    delay = BACKOFF[number - 1] * (1 + JITTER * jitter)
    if retry_after is not None and status in (429, 503):
        delay = max(delay, min(retry_after, RETRY_AFTER_CEILING))
    return Retry(delay)


def parse_retry_after(value: str | None, now: datetime) -> timedelta | None:
    """The wait of a `Retry-After` header; None if it is absent, unreadable or in the past."""
    if value is None:
        return None
    text = value.strip(" \t")
    if _RETRY_AFTER_SECONDS.fullmatch(text):
        return timedelta(seconds=int(text))
    at = _http_date(text)
    return at - now if at is not None and at > now else None


def _http_date(text: str) -> datetime | None:
    for form in _HTTP_DATES:
        with suppress(ValueError):
            return datetime.strptime(text, form).replace(tzinfo=UTC)
    return None
