"""A handler with its description: who may call it, what it takes, what it answers.

The check of the caller and the OpenAPI document are made from the same description.
"""

from collections.abc import Awaitable, Callable, Mapping
from inspect import getdoc
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from scheduler_api.api.auth.requires import Credential, requires
from scheduler_api.api.body_reader import HELD_BYTES
from scheduler_api.api.http import header, refuse_query
from scheduler_api.byte_budget import ByteBudget
from scheduler_api.domain import access
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.store.store import Store

CONTEXT: Final = "scheduler.context"  # in a request's scope

Handler = Callable[[Request], Awaitable[Response]]


class Context(msgspec.Struct, frozen=True):
    """What the handlers of one application share."""

    store: Store
    credentials: tuple[Credential, ...]  # the kinds that are accepted
    refusal: Callable[[str, int], str | None]  # why a host and port may not be dialled
    default_zone: str  # IANA name
    max_body: int  # bytes
    bodies: ByteBudget  # for the bodies of all requests
    is_running: Callable[[], bool]  # whether the dispatcher looks for due messages


def context(request: Request) -> Context:
    """The context of the application."""
    scope = request.scope
    found: Context | None = scope.get(CONTEXT)
    if found is None:  # looked up once per request
        found = scope[CONTEXT] = scope["app"].state.context
    return found


class Endpoint(msgspec.Struct, frozen=True):
    """A handler as an ASGI application, and its description."""

    handle: Handler
    summary: str  # one line, begins with a verb
    description: str  # what the summary leaves out; may be empty
    scope: access.Scope | None  # None: needs no credential
    responses: Mapping[int, Any]  # status → struct of the body
    body: Any  # struct; None: takes no body
    example: Any  # of the body, complete and valid; None: takes no body
    query: Any  # struct; None: takes no query, and refuses one
    errors: tuple[type[SchedulerError], ...]  # beside those that every endpoint has
    any_query: bool  # ignores a query

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises: SchedulerError."""
        response = await self.respond(scope, receive)
        await response(scope, receive, send)

    async def respond(self, scope: Scope, receive: Receive) -> Response:
        """The response to one request, if its caller has the scope. Raises: SchedulerError."""
        request = Request(scope, receive)
        if self.scope is not None:
            authorization = header(scope, b"authorization") or b""
            requires(self.scope, authorization, context(request).credentials)
        if scope["query_string"] and self.query is None and not self.any_query:
            refuse_query(request)
        try:
            return await self.handle(request)
        finally:
            if HELD_BYTES in scope:
                context(request).bodies.release(scope.pop(HELD_BYTES))


def endpoint(
    scope: access.Scope | None,
    responses: Mapping[int, Any],
    *,
    body: Any = None,
    example: Any = None,
    query: Any = None,
    errors: tuple[type[SchedulerError], ...] = (),
    any_query: bool = False,
) -> Callable[[Handler], Endpoint]:
    """Describe a handler; the first line of its docstring is the summary, the rest describes it."""

    def describe(handle: Handler) -> Endpoint:
        summary, _, description = (getdoc(handle) or "").partition("\n\n")
        return Endpoint(
            handle=handle,
            summary=summary.rstrip("."),
            description=description,
            scope=scope,
            responses=responses,
            body=body,
            example=example,
            query=query,
            errors=errors,
            any_query=any_query,
        )

    return describe
