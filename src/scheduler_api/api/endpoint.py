"""What a handler needs around it: who may call it, and what it takes and answers, for OpenAPI."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.api.http import header, refuse_query
from scheduler_api.api.request_bodies import HELD
from scheduler_api.byte_budget import Budget
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.store.store import Store

Handler = Callable[[Request], Awaitable[Response]]


class Context(msgspec.Struct, frozen=True):
    """What the handlers of one application share."""

    store: Store
    token: BearerToken
    refusal: Callable[[str, int], str | None]  # why a host and port may not be dialled
    default_zone: str  # IANA name
    max_body: int  # bytes
    bodies: Budget  # for what requests bring
    is_running: Callable[[], bool]  # whether due messages are being looked for


def context(request: Request) -> Context:
    """The application's."""
    found: Context = request.app.state.context
    return found


class Endpoint(msgspec.Struct, frozen=True):
    """A handler as an ASGI application, and its description."""

    handle: Handler
    summary: str
    answers: Mapping[int, Any]  # status → struct, or a media type's name
    body: Any  # struct; None: takes no body
    query: Any  # struct; None: takes no query, and refuses one
    errors: tuple[type[SchedulerError], ...]  # beside those that every endpoint has
    public: bool  # needs no token
    any_query: bool  # ignores a query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, if the caller may ask. Raises: SchedulerError."""
        request = Request(scope, receive)
        if not self.public:
            context(request).token.check(header(scope, b"authorization") or b"")
        if scope["query_string"] and self.query is None and not self.any_query:
            refuse_query(request)
        try:
            response = await self.handle(request)
        finally:
            if HELD in scope:
                context(request).bodies.give(scope.pop(HELD))
        await response(scope, receive, send)


def endpoint(
    answers: Mapping[int, Any],
    *,
    body: Any = None,
    query: Any = None,
    errors: tuple[type[SchedulerError], ...] = (),
    public: bool = False,
    any_query: bool = False,
) -> Callable[[Handler], Endpoint]:
    """Describe a handler; its docstring's first line is the summary."""

    def describe(handle: Handler) -> Endpoint:
        summary = (handle.__doc__ or "").partition("\n")[0].rstrip(".")
        return Endpoint(handle, summary, answers, body, query, errors, public, any_query)

    return describe
