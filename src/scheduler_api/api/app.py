"""The ASGI application: its routes, and the response to each error."""

import secrets
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope

from scheduler_api.api import destinations, health, pages
from scheduler_api.api.foreign_server import ForeignServerGuard
from scheduler_api.api.http import Problem, problem
from scheduler_api.api.messages import batch, change, create, read
from scheduler_api.api.openapi import document, serve
from scheduler_api.api.routing import Resources, Router, refusal, routes
from scheduler_api.domain.errors import SchedulerError

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
    router = Router(RESOURCES, app.router, _response_to)
    app.middleware_stack = ForeignServerGuard(router, root_path) if foreign else router
    return app


def _response_to(error: Exception, scope: Scope) -> Response:
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
