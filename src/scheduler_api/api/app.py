"""The ASGI application: routes, middleware, errors."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler_api.api import batch, destinations, docs, messages, operations
from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import Problem, problem
from scheduler_api.api.openapi import document
from scheduler_api.domain.errors import Malformed, SchedulerError

log = structlog.get_logger()

# Path → method → endpoint: the API; what it says of itself is built from this.
RESOURCES: Final[Mapping[str, Mapping[str, Endpoint]]] = {
    "/messages": {"GET": messages.list_, "POST": messages.create},
    "/messages/batch": {"POST": batch.create_many},
    "/messages/{id}": {"GET": messages.get, "DELETE": messages.delete},
    "/destinations": {"GET": destinations.list_},
    "/destinations/{host}": {
        "GET": destinations.get,
        "PUT": destinations.put,
        "DELETE": destinations.delete,
    },
    "/health": {"GET": operations.health},
    "/health/live": {"GET": operations.live},
    "/health/ready": {"GET": operations.ready},
}


def create_app(lifespan: Callable[[Starlette], Any] | None = None) -> Starlette:
    """The application; `lifespan` sets `app.state.context` before the first request."""
    return Starlette(
        routes=[
            *(_route(path, methods) for path, methods in RESOURCES.items()),
            Route("/docs", docs.page),
            Route("/docs/{name}", docs.file),
            Route("/openapi.json", docs.openapi(document(RESOURCES))),
        ],
        middleware=[Middleware(LastResort)],
        exception_handlers={
            SchedulerError: _scheduler_error,
            HTTPException: _http_error,
            ClientDisconnect: _client_gone,
        },
        lifespan=lifespan,
    )


def _route(path: str, methods: Mapping[str, Endpoint]) -> Route:
    """One route a path, so that a 405 tells of all its methods in Allow."""

    async def dispatch(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await methods[method](request)

    return Route(path, dispatch, methods=list(methods))


async def _scheduler_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, SchedulerError)  # noqa: S101
    return problem(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """What Starlette refuses: no such path, or not with this method."""
    assert isinstance(error, HTTPException)  # noqa: S101
    if error.status_code != 405:
        detail = "There is nothing at this address; see /docs."
        return Problem(error.status_code, "Not Found", "not_found", detail)
    detail = "This address does not take this method; Allow names those that it takes."
    headers = {"Allow": ", ".join(sorted(_methods_at(request)))}
    return Problem(405, "Method Not Allowed", "method_not_allowed", detail, headers=headers)


def _methods_at(request: Request) -> set[str]:
    """Of every route that fits: /messages/batch is the address of a message as well."""
    routes = (route for route in request.app.routes if isinstance(route, Route))
    fitting = (route for route in routes if route.matches(request.scope)[0] is not Match.NONE)
    return {method for route in fitting for method in route.methods or ()}


async def _client_gone(_: Request, __: Exception) -> Response:
    """Nobody reads this answer."""
    return Response(status_code=400)


class LastResort:
    """Refuses contradictory framing; answers 500 for what nobody expected, and logs it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _contradictory(scope):
            detail = "Send Content-Length or Transfer-Encoding, not both."
            await problem(Malformed(detail))(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception:
            request_id = secrets.token_hex(8)
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            if started:
                raise
            await _internal_error(request_id)(scope, receive, send)


def _contradictory(scope: Scope) -> bool:
    names = {name for name, _ in scope["headers"]}
    return b"content-length" in names and b"transfer-encoding" in names


def _internal_error(request_id: str) -> Problem:
    detail = f"This is our fault; the log tells more under request id {request_id}."
    return Problem(
        500, "Internal Server Error", "internal_error", detail, {"requestId": request_id}
    )
