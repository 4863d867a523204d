"""How a message is shown: a row of the list, a whole message, its attempts, and why it waits."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from scheduler_api.api.http import Instant
from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.destination import Hold, HoldReason
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import Listed, Message, Method, State, payload
from scheduler_api.domain.retry import MAX_ATTEMPTS


class Row(msgspec.Struct, rename="camel"):
    """A pending message in the list."""

    message_id: str
    next_run: Instant
    trigger: str  # in the words of the original: date[2026-04-15 02:41:45 UTC]
    webhook_url: str
    state: State
    attempts: int
    tags: list[str]


class MessageList(msgspec.Struct, rename="camel"):
    """A page of pending messages, soonest first."""

    scheduled_jobs: list[Row]
    count: int  # on this page
    total: int  # of all pages
    next_cursor: str | None
    timestamp: Instant


class AttemptView(msgspec.Struct, rename="camel"):
    """One HTTP request that was made."""

    number: int
    started_at: Instant
    duration_ms: int
    status: int | None
    error: str | None
    response_excerpt: str | None
    lateness_ms: int
    location: Annotated[
        str | UnsetType,
        Meta(
            description="Where a redirect leads, its first 200 characters; it is not followed.",
            examples=["https://example.com/hook/"],
        ),
    ] = UNSET


class MessageView(msgspec.Struct, rename="camel"):
    """A message as it stands."""

    id: str
    webhook_url: str
    method: Method
    headers: dict[str, str]
    content_type: str
    state: State
    why: str
    created_at: Instant
    scheduled_for: Instant
    next_attempt: Instant | None
    attempts: list[AttemptView]
    payload: Any | UnsetType = UNSET  # as it was given
    delay: float | UnsetType = UNSET  # seconds, as asked
    timezone: str | UnsetType = UNSET
    timeout: float | UnsetType = UNSET  # seconds


def row_of(listed: Listed) -> Row:
    """The row of a pending message."""
    return Row(
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
        method=spec.method,
        headers=spec.headers,
        content_type=spec.content_type,
        payload=payload(spec),
        state=message.state,
        why=_why(message),
        created_at=format_instant(message.created_at),
        scheduled_for=format_instant(message.scheduled_at),
        next_attempt=None if next_at is None else format_instant(next_at),
        attempts=[_attempt(attempt) for attempt in message.attempts],
        delay=UNSET if spec.delay_ms is None else spec.delay_ms / 1000,
        timezone=spec.timezone or UNSET,
        timeout=UNSET if spec.timeout_ms is None else spec.timeout_ms / 1000,
    )


def _attempt(attempt: Attempt) -> AttemptView:
    number, started_at, *rest = msgspec.structs.astuple(attempt)
    rest[-1] = attempt.location or UNSET
    return AttemptView(number, format_instant(started_at), *rest)


def _why(message: Message) -> str:
    """The state in words."""
    tried = f"{message.attempts_made} of {MAX_ATTEMPTS} attempts made"
    last = f"; the last: {_result(message.attempts[-1])}" if message.attempts else ""
    waits = "waits for its time" if message.hold is None else _held_up(message.hold)
    words: dict[State, str] = {
        "scheduled": waits,
        "retrying": f"{waits if message.hold else 'waits to be tried again'}: {tried}{last}",
        "delivering": "is being sent",
        "delivered": f"was delivered: {tried}",
        "failed": f"was given up: {tried}{last}",
    }
    died = f"; {message.crashes} processes died with it" if message.crashes else ""
    return words[message.state] + died


def _held_up(hold: Hold) -> str:
    """Why a due message is not sent."""
    at = "" if hold.until is None else f", next {{}} at {format_instant(hold.until)}"
    words: dict[HoldReason, str] = {
        "paused": "destination paused",
        "full": "its destination is at its limit",
        "rate": "its destination is at its rate" + at.format("message"),
        "unreachable": "destination unreachable" + at.format("probe"),
    }
    return words[hold.reason]


def _result(attempt: Attempt) -> str:
    return attempt.error or f"answered {attempt.status}"
