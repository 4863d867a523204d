"""/messages: create, list, get, delete."""

import os
import time
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.body_reader import read_body
from scheduler_api.api.endpoint import Context, context, endpoint
from scheduler_api.api.http import JSON, Instant, decode, query
from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.destination import Hold, Reason
from scheduler_api.domain.errors import (
    DuplicateMessage,
    Invalid,
    Malformed,
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    PayloadTooLarge,
)
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import (
    Accepted,
    Listed,
    Message,
    Method,
    NewMessage,
    State,
    accept,
    payload,
)
from scheduler_api.domain.retry import MAX_ATTEMPTS
from scheduler_api.domain.url import destination_name

log = structlog.get_logger()

_NEW: Final = msgspec.json.Decoder(NewMessage)
_NEW_FIELDS: Final = NewMessage.__struct_encode_fields__


class Created(msgspec.Struct, rename="camel"):
    """A message was stored."""

    message_id: str
    scheduled_for: Instant
    status: Literal["scheduled"] = "scheduled"


class Deleted(msgspec.Struct, rename="camel"):
    """A message will not be sent."""

    message_id: str
    status: Literal["deleted"] = "deleted"


class ListQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Messages on a page.")] = 1000
    cursor: Annotated[
        str | UnsetType,
        Meta(description="`nextCursor` of the page before; the first page without it."),
    ] = UNSET


_LIST_FIELDS: Final = ListQuery.__struct_encode_fields__


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


@endpoint(
    "write",
    {201: Created},
    body=NewMessage,
    errors=(Malformed, PayloadTooLarge, DuplicateMessage, Invalid),
)
async def create(request: Request) -> Response:
    """Store a message for later."""
    ours = context(request)
    message_id, accepted = checked(await read_body(request, ours.max_body, ours.bodies), ours)
    destination = destination_name(accepted.url.authority)
    storing = ours.store.messages.create(message_id, accepted)
    del accepted  # the body is held once while it waits
    scheduled_at = await storing
    log.info("message_created", message_id=message_id, destination=destination)
    created = Created(message_id, format_instant(scheduled_at))
    root = request.scope.get("root_path", "")
    return JSON(created, 201, {"Location": f"{root}/messages/{quote(message_id, safe='')}"})


def checked(body: bytes, ours: Context) -> tuple[str, Accepted]:
    """The message that a body asks for, and its id. Raises: Malformed, Invalid."""
    new = decode(body, _NEW, _NEW_FIELDS)
    accepted = accept(new, ours.default_zone, ours.refusal)
    return accepted.id or str(_uuid7()), accepted


@endpoint("read", {200: MessageList}, query=ListQuery, errors=(Invalid,))
async def list_(request: Request) -> Response:
    """List pending messages, soonest first."""
    asked = query(request, ListQuery, _LIST_FIELDS)
    page = await context(request).store.messages.list(asked.limit, asked.cursor or None)
    rows = [_row(listed) for listed in page.rows]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return JSON(MessageList(rows, len(rows), page.total, page.cursor, now))


@endpoint("read", {200: MessageView}, errors=(MessageNotFound,))
async def get(request: Request) -> Response:
    """Show a message, with its attempts."""
    message = await context(request).store.messages.get(request.path_params["id"])
    return JSON(_view(message))


@endpoint("write", {200: Deleted}, errors=(MessageNotFound, MessageFinished, MessageInFlight))
async def delete(request: Request) -> Response:
    """Cancel a message that waits."""
    message_id = request.path_params["id"]
    await context(request).store.messages.cancel(message_id)
    log.info("message_cancelled", message_id=message_id)
    return JSON(Deleted(message_id))


def _uuid7() -> uuid.UUID:
    """Sorts by time (RFC 9562); the standard library has it from 3.14 on."""
    random = int.from_bytes(os.urandom(10))
    number = time.time_ns() // 1_000_000 << 80 | random
    number = number & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=number & ~(3 << 62) | 2 << 62)


def _row(listed: Listed) -> Row:
    return Row(
        message_id=listed.id,
        next_run=format_instant(listed.due_at),
        trigger=f"date[{listed.due_at:%Y-%m-%d %H:%M:%S} UTC]",
        webhook_url=listed.url,
        state=listed.state,
        attempts=listed.attempts_made,
        tags=[],
    )


def _view(message: Message) -> MessageView:
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
    words: dict[Reason, str] = {
        "paused": "destination paused",
        "full": "its destination is at its limit",
        "rate": "its destination is at its rate" + at.format("message"),
        "unreachable": "destination unreachable" + at.format("probe"),
    }
    return words[hold.reason]


def _result(attempt: Attempt) -> str:
    return attempt.error or f"answered {attempt.status}"
