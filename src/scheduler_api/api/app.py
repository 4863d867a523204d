"""The ASGI application: its routes, and the response to each error."""

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from scheduler_api.api import destinations, health, pages
from scheduler_api.api.foreign_server import ForeignServerGuard
from scheduler_api.api.http import Problem, problem
from scheduler_api.api.messages import batch, change, create, read
from scheduler_api.api.openapi import document, serve
from scheduler_api.api.routing import Resources, Router, refusal, routes
from scheduler_api.domain.errors import SchedulerError, ShuttingDown

log = structlog.get_logger()

# The routes and the OpenAPI document are made from this table.
RESOURCES: Final[Resources] = {
    "/messages": {"GET": read.list_, "POST": create.create},
    "/messages/batch": {"POST": batch.create_many},
    "/messages/{id}": {"GET": read.get, "DELETE": change.delete},
    "/destinations": {"GET": destinations.list_},
    "/destinations/{host}": {
        "GET": destinations.get,
        "PUT": destinations.put,
        "DELETE": destinations.delete,
    },
    "/health": {"GET": health.show},
    "/health/live": {"GET": health.live},
    "/health/ready": {"GET": health.ready},
}


def create_app(
    lifespan: Callable[[Starlette], Any] | None = None,
    *,
    foreign: bool = False,
    root_path: str = "",
) -> Starlette:
    """The application; `lifespan` sets `app.state.context` before the first request.

    `foreign`: another server than ours parses the requests. `root_path`: for such a server.
    """
    app = Starlette(
        routes=[
            *routes(RESOURCES),
            *pages.DOCS.routes(),
            Route("/openapi.json", serve(document(RESOURCES))),
        ],
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False  # it would build a URL from the Host of the caller
    # One layer in place of the three by which Starlette handles errors.
    layer = ErrorResponses(Router(RESOURCES, app.router))
    app.middleware_stack = ForeignServerGuard(layer, root_path) if foreign else layer
    return app


class ErrorResponses:
    """Calls what answers a request; turns errors into responses and logs unexpected ones."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self._router.others(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            app, scope = self._router.find(scope)
            await app(scope, receive, watched)
        except asyncio.CancelledError:  # the server ends, and its grace period is over
            if started:
                raise
            await problem(ShuttingDown())(scope, receive, send)
        except Exception as error:
            response = _response(error, scope)
            if started:
                raise
            await response(scope, receive, send)


def _response(error: Exception, scope: Scope) -> Response:
    if isinstance(error, SchedulerError):
        return problem(error)
    if isinstance(error, HTTPException):
        return refusal(error, scope)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    request_id = secrets.token_hex(8)
    log.error("request_failed", request_id=request_id, path=scope["path"], exc_info=error)
    detail = f"Internal error; see request id {request_id} in the server log."
    facts = {"requestId": request_id}
    return Problem(500, "Internal Server Error", "internal_error", detail, facts)
