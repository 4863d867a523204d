"""POST /messages: check a message and store it."""

import os
import re
import time
import uuid
from typing import Annotated, Final, Literal
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.body_reader import read_body
from scheduler_api.api.endpoint import Context, context, endpoint
from scheduler_api.api.fields import (
    EXAMPLE_ID,
    EXAMPLE_INSTANT,
    EXAMPLE_MESSAGE,
    Instant,
    described,
)
from scheduler_api.api.http import JSON, decode
from scheduler_api.domain.accept import accept
from scheduler_api.domain.errors import DuplicateMessage, Invalid, Malformed, PayloadTooLarge
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import Accepted, NewMessage
from scheduler_api.domain.url import destination_name
from scheduler_api.telemetry import transitions

_NEW: Final = msgspec.json.Decoder(NewMessage)
_NEW_FIELDS: Final = NewMessage.__struct_encode_fields__
_UNRESERVED: Final = re.compile(r"[\w.~-]+", re.ASCII).fullmatch  # the same when percent-encoded


class Created(msgspec.Struct, rename="camel"):
    """A message was stored."""

    message_id: Annotated[str, described("ID of the message.", EXAMPLE_ID)]
    scheduled_for: Annotated[Instant, described("When it will be sent.", EXAMPLE_INSTANT)]
    status: Annotated[Literal["scheduled"], described("Always `scheduled`.")] = "scheduled"


@endpoint(
    "write",
    {201: Created},
    body=NewMessage,
    example=EXAMPLE_MESSAGE,
    errors=(Malformed, PayloadTooLarge, DuplicateMessage, Invalid),
)
async def create(request: Request) -> Response:
    """Schedule a message."""
    ours = context(request)
    message_id, accepted = checked(await read_body(request, ours.max_body, ours.bodies), ours)
    destination = destination_name(accepted.url.authority)
    storing = ours.store.messages.create(message_id, accepted)
    del accepted  # only one copy of the body stays in memory during the call
    scheduled_at = await storing
    transitions.message_created(message_id, destination)
    created = Created(message_id, format_instant(scheduled_at))
    root = request.scope.get("root_path", "")
    name = message_id if _UNRESERVED(message_id) else quote(message_id, safe="")
    return JSON(created, 201, {"Location": f"{root}/messages/{name}"})


def checked(body: bytes, ours: Context) -> tuple[str, Accepted]:
    """The message that a body asks for, and its id. Raises: Malformed, Invalid."""
    new = decode(body, _NEW, _NEW_FIELDS)
    accepted = accept(new, ours.default_zone, ours.refusal)
    return accepted.id or str(_uuid7()), accepted


def _uuid7() -> uuid.UUID:
    """Sorts by time (RFC 9562); the standard library has it from 3.14 on."""
    random = int.from_bytes(os.urandom(10))
    number = time.time_ns() // 1_000_000 << 80 | random
    number = number & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=number & ~(3 << 62) | 2 << 62)
