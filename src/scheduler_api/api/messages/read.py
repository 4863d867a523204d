"""GET /messages and GET /messages/{id}."""

from datetime import UTC, datetime

from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.fields import PAGE_FIELDS, PageQuery
from scheduler_api.api.http import JSON, query
from scheduler_api.api.messages.views import MessageList, MessageView, row_of, view_of
from scheduler_api.domain.errors import Invalid, MessageNotFound


@endpoint("read", {200: MessageList}, query=PageQuery, errors=(Invalid,))
async def list_(request: Request) -> Response:
    """List pending messages, soonest first."""
    asked = query(request, PageQuery, PAGE_FIELDS)
    page = await context(request).store.messages.list(asked.limit, asked.cursor or None)
    rows = [row_of(listed) for listed in page.rows]
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return JSON(MessageList(rows, len(rows), page.total, page.cursor, now))


@endpoint("read", {200: MessageView}, errors=(MessageNotFound,))
async def get(request: Request) -> Response:
    """Show a message and its attempts."""
    message = await context(request).store.messages.get(request.path_params["id"])
    return JSON(view_of(message))
