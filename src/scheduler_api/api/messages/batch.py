"""POST /messages/batch: create many messages. Each one has its own result."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.body_reader import read_body
from scheduler_api.api.endpoint import Context, context, endpoint
from scheduler_api.api.fields import EXAMPLE_MESSAGE, described
from scheduler_api.api.http import JSON, decode, problem
from scheduler_api.api.messages.create import Created, checked
from scheduler_api.api.openapi import InvalidDetails, ProblemDetails, reference
from scheduler_api.domain.errors import (
    Invalid,
    Malformed,
    OutcomeUnknown,
    PayloadTooLarge,
    SchedulerError,
    Unavailable,
)
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.message import Accepted, NewMessage
from scheduler_api.store.messages import Stored
from scheduler_api.telemetry import transitions

MAX_BATCH: Final = 1000  # messages
CHECK_BATCH: Final = 100  # messages that are checked before other tasks get a turn

New = tuple[str, Accepted]  # id and request


class NewMessages(msgspec.Struct, forbid_unknown_fields=True):
    """Messages to schedule."""

    messages: Annotated[
        # Raw: an invalid message must not make the others invalid.
        list[Annotated[msgspec.Raw, Meta(extra_json_schema={"allOf": [reference(NewMessage)]})]],
        Meta(min_length=1, max_length=MAX_BATCH),
        described(
            f"1–{MAX_BATCH:,} messages; the whole body is at most `MAX_BODY` bytes.",
            [EXAMPLE_MESSAGE],
        ),
    ]


class BatchResult(msgspec.Struct):
    """The result of one message: the response that it would have had alone."""

    status: Annotated[int, described("201, or the status of the error: 409, 422, 503.", 201)]
    body: Annotated[
        Any,
        Meta(
            extra_json_schema={
                "anyOf": [reference(it) for it in (Created, InvalidDetails, ProblemDetails)]
            }
        ),
        described("The body of that response."),
    ]


class BatchResults(msgspec.Struct):
    """The result of each message, in the order of the request."""

    results: Annotated[list[BatchResult], described("One result for each message.")]


_MANY: Final = msgspec.json.Decoder(NewMessages)
_MANY_FIELDS: Final = NewMessages.__struct_encode_fields__


@endpoint(
    "write",
    {200: BatchResults},
    body=NewMessages,
    example={"messages": [EXAMPLE_MESSAGE]},
    errors=(Malformed, PayloadTooLarge, Invalid),
)
async def create_many(request: Request) -> Response:
    """Schedule up to 1,000 messages.

    Each message is checked and stored separately: the response is 200 if some or all are refused.
    """
    ours = context(request)
    asked = decode(await read_body(request, ours.max_body, ours.bodies), _MANY, _MANY_FIELDS)
    found = [one async for one in _checked(asked.messages, ours)]
    new = [one for one in found if not isinstance(one, SchedulerError)]
    del asked  # only one copy of the body stays in memory during the call
    stored = await ours.store.messages.create_many(new)
    _raise_if_away(found, stored)
    results = list(_results(found, stored))
    created = sum(result.status == 201 for result in results)
    transitions.messages_created(created, len(results) - created)
    return JSON(BatchResults(results))


async def _checked(
    bodies: Sequence[msgspec.Raw], ours: Context
) -> AsyncIterator[New | SchedulerError]:
    for number, body in enumerate(bodies, 1):
        try:
            yield checked(bytes(body), ours)
        except SchedulerError as error:
            yield error
        if number % CHECK_BATCH == 0:
            await asyncio.sleep(0)


def _raise_if_away(found: Sequence[New | SchedulerError], stored: Sequence[Stored]) -> None:
    """Raise the store's error if it refused every message: clients repeat a 503, but not a 200.

    If some may have been stored, the error has the ids of all, in the order of the batch.
    """
    away = [one for one in stored if isinstance(one, Unavailable)]
    if not away or len(away) < len(stored):
        return
    if any(isinstance(one, OutcomeUnknown) for one in away):
        ids = [None if isinstance(one, SchedulerError) else one[0] for one in found]
        raise OutcomeUnknown(
            "Which messages were stored is unknown; it is safe to repeat the request with these "
            "`messageIds` as the `id` of each message.",
            messageIds=ids,
        )
    raise away[0]


def _results(
    found: Iterable[New | SchedulerError], stored: Iterable[Stored]
) -> Iterable[BatchResult]:
    of_new = iter(stored)
    for one in found:
        if isinstance(one, SchedulerError):
            yield _refused(one)
        else:
            yield _stored(one[0], next(of_new))


def _stored(message_id: str, stored: Stored) -> BatchResult:
    if isinstance(stored, datetime):
        return BatchResult(201, Created(message_id, format_instant(stored)))
    return _refused(stored)


def _refused(error: SchedulerError) -> BatchResult:
    answer = problem(error)
    return BatchResult(answer.status_code, msgspec.Raw(answer.body))
