"""How a message is shown: a row of the list, a whole message, its attempts, and why it waits."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from scheduler_api.api.fields import EXAMPLE_CURSOR, EXAMPLE_ID, EXAMPLE_INSTANT, Instant, described
from scheduler_api.domain.attempt import ERROR_MEANINGS, Attempt
from scheduler_api.domain.destination import Hold, HoldReason
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import (
    CheckedRequest,
    Listed,
    Message,
    Method,
    State,
    options_of,
    payload,
)
from scheduler_api.domain.retry import MAX_ATTEMPTS


class MessageRow(msgspec.Struct, rename="camel"):
    """A pending message in the list."""

    message_id: Annotated[str, described("ID of the message.", EXAMPLE_ID)]
    next_run: Annotated[Instant, described("When the next attempt is due.", EXAMPLE_INSTANT)]
    trigger: Annotated[  # the words of the original
        str, described("`nextRun` in words.", "date[2046-04-15 02:41:45 UTC]")
    ]
    webhook_url: Annotated[str, described("URL that is called.", "https://example.com/hook")]
    state: Annotated[State, described("`scheduled`, `retrying` or `delivering`.")]
    attempts: Annotated[int, described("Number of attempts so far.", 0)]
    tags: Annotated[list[str], described("Always empty.", [])]


class MessageList(msgspec.Struct, rename="camel"):
    """A page of pending messages, soonest first."""

    scheduled_jobs: Annotated[list[MessageRow], described("The messages on this page.")]
    count: Annotated[int, described("Number of messages on this page.", 1)]
    total: Annotated[int, described("Number of all pending messages.", 1)]
    next_cursor: Annotated[
        str | None, described("`cursor` of the next page; null on the last page.", EXAMPLE_CURSOR)
    ]
    timestamp: Annotated[Instant, described("Time of this response.", "2046-04-15T02:40:00Z")]


class AttemptView(msgspec.Struct, rename="camel"):
    """One HTTP request that was made."""

    number: Annotated[int, described("Number of the attempt, from 1.", 1)]
    started_at: Annotated[Instant, described("When the request was started.", EXAMPLE_INSTANT)]
    duration_ms: Annotated[int, described("Duration in milliseconds.", 140)]
    status: Annotated[int | None, described("Status of the response; null if there was none.", 503)]
    error: Annotated[
        str | None,
        described(
            "Why there was no usable response, null if there was one. "
            + "; ".join(f"`{word}`: {meaning.text}" for word, meaning in ERROR_MEANINGS.items())
            + ".",
            "timeout",
        ),
    ]
    response_excerpt: Annotated[
        str | None,
        described("Start of the response body as text, at most 4 KiB.", "upstream is down"),
    ]
    lateness_ms: Annotated[
        int, described("Milliseconds from the time the attempt was due until its start.", 3)
    ]
    location: Annotated[
        str | UnsetType,
        described(
            "Target of a redirect, at most 200 characters. Redirects are not followed.",
            "https://example.com/hook/",
        ),
    ] = UNSET


class MessageView(CheckedRequest, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A message: its options, its state and its attempts."""

    # These three options are shown even if they were not asked for.
    method: Annotated[Method, described("Method of the request.")]
    headers: Annotated[dict[str, str], described("Your headers.", {"X-Trace": "42"})]
    content_type: Annotated[str, described("Type of the body.", "application/json")]
    payload: Annotated[
        Any | UnsetType, described("The payload as it was given.", {"message": "Sua mensagem aqui"})
    ] = UNSET
    state: Annotated[
        State,
        described(
            "`scheduled`: waits for its time or its destination. `retrying`: the same, after a "
            "failed attempt. `delivering`: being sent, or about to be. `delivered`: a 2xx response "
            "came. `failed`: all attempts failed, or the receiver refused further ones."
        ),
    ]
    why: Annotated[str, described("The reason for the state, for people.", "waits for its time")]
    created_at: Annotated[Instant, described("When the message was stored.", EXAMPLE_INSTANT)]
    scheduled_for: Annotated[Instant, described("When it was to be sent.", EXAMPLE_INSTANT)]
    next_attempt: Annotated[
        Instant | None,
        described("When the next attempt is due; null if there is none.", EXAMPLE_INSTANT),
    ]
    attempts: Annotated[list[AttemptView], described("The last 20 attempts, oldest first.")]


def row_of(listed: Listed) -> MessageRow:
    """The row of a pending message."""
    return MessageRow(
        message_id=listed.id,
        next_run=format_instant(listed.due_at),
        trigger=f"date[{listed.due_at:%Y-%m-%d %H:%M:%S} UTC]",
        webhook_url=listed.url,
        state=listed.state,
        attempts=listed.attempts_made,
        tags=[],
    )


def view_of(message: Message) -> MessageView:
    """The message with its options, state and attempts."""
    spec, next_at = message.spec, message.next_attempt_at
    return MessageView(
        id=message.id,
        webhook_url=spec.given_url or message.url,
        payload=payload(spec),
        state=message.state,
        why=_why(message),
        created_at=format_instant(message.created_at),
        scheduled_for=format_instant(message.scheduled_at),
        next_attempt=None if next_at is None else format_instant(next_at),
        attempts=[_attempt(attempt) for attempt in message.attempts],
        **options_of(spec),
    )


def _attempt(attempt: Attempt) -> AttemptView:
    number, started_at, *rest = msgspec.structs.astuple(attempt)
    rest[-1] = attempt.location or UNSET
    return AttemptView(number, format_instant(started_at), *rest)


def _why(message: Message) -> str:
    """The reason for the state, for people."""
    attempts = f"{message.attempts_made} of {MAX_ATTEMPTS} attempts"
    last = f"; last: {_result(message.attempts[-1])}" if message.attempts else ""
    hold = message.hold and _why_held(message.hold)
    reasons: dict[State, str] = {
        "scheduled": hold or "waits for its time",
        "retrying": f"{hold or 'waits for its next attempt'}; {attempts} made{last}",
        "delivering": "being sent, or about to be",
        "delivered": f"delivered after {attempts}",
        "failed": f"failed after {attempts}{last}",
    }
    return reasons[message.state] + _crashes(message.crashes)


def _why_held(hold: Hold) -> str:
    until = "" if hold.until is None else format_instant(hold.until)
    reasons: dict[HoldReason, str] = {
        "paused": "destination paused",
        "full": "destination at its concurrency limit",
        "rate": f"rate limited until {until}",
        "unreachable": "destination unreachable" + (until and f", next probe at {until}"),
    }
    return reasons[hold.reason]


def _result(attempt: Attempt) -> str:
    return attempt.error or f"HTTP {attempt.status}"


def _crashes(number: int) -> str:
    if not number:
        return ""
    return f"; {number} {'process' if number == 1 else 'processes'} crashed while sending"
