"""DELETE /messages/{id}: change a message that waits."""

from typing import Annotated, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.fields import EXAMPLE_ID, described
from scheduler_api.api.http import JSON
from scheduler_api.domain.errors import MessageFinished, MessageInFlight, MessageNotFound
from scheduler_api.telemetry import transitions


class Deleted(msgspec.Struct, rename="camel"):
    """The message was cancelled and will not be sent."""

    message_id: Annotated[str, described("ID of the message.", EXAMPLE_ID)]
    status: Annotated[Literal["deleted"], described("Always `deleted`.")] = "deleted"


@endpoint("write", {200: Deleted}, errors=(MessageNotFound, MessageFinished, MessageInFlight))
async def delete(request: Request) -> Response:
    """Cancel a message that has not been sent yet."""
    message_id = request.path_params["id"]
    await context(request).store.messages.cancel(message_id)
    transitions.message_cancelled(message_id)
    return JSON(Deleted(message_id))
