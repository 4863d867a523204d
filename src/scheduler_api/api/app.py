"""The ASGI application: routes, middleware, errors."""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler_api.api import destinations
from scheduler_api.api import health as operations
from scheduler_api.api import pages as docs
from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import Problem, problem
from scheduler_api.api.messages import batch
from scheduler_api.api.messages import handlers as messages
from scheduler_api.api.openapi import document
from scheduler_api.api.server_checks import UnderForeignServer
from scheduler_api.domain.errors import SchedulerError, ShuttingDown

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

# Those whose path is fixed, by method and path: found at once, without trying one route after
# the other.
_FIXED: Final[Mapping[tuple[str, str], Endpoint]] = {
    (method, path): endpoint
    for path, methods in RESOURCES.items()
    for method, endpoint in methods.items()
    if "{" not in path
}


def create_app(
    lifespan: Callable[[Starlette], Any] | None = None,
    *,
    foreign: bool = False,
    root_path: str = "",
) -> Starlette:
    """The application; `lifespan` sets `app.state.context` before the first request.

    `foreign`: the requests are read by another protocol than ours. `root_path`: for such a server.
    """
    app = _Application(
        routes=[
            *(_route(path, methods) for path, methods in RESOURCES.items()),
            Route("/docs", docs.page),
            Route("/docs/{name}", docs.file),
            Route("/openapi.json", docs.openapi(document(RESOURCES))),
        ],
        lifespan=lifespan,
    )
    app.foreign, app.root_path = foreign, root_path
    app.router.redirect_slashes = False  # it would build a URL from the Host of the caller
    return app


class _Application(Starlette):
    """Starlette with one layer around its router, where its own three handle errors in turn."""

    foreign: bool  # the requests are read by another protocol than ours
    root_path: str  # for such a server

    def build_middleware_stack(self) -> ASGIApp:
        """That layer."""
        outermost = _Outermost(self.router)
        return UnderForeignServer(outermost, self.root_path) if self.foreign else outermost


class _Outermost:
    """Finds the endpoint; turns errors into responses, and logs what nobody expected."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            endpoint = _FIXED.get((scope["method"], scope["path"]))
            if endpoint is None:
                path, scope = _normalized(scope)
                endpoint = _FIXED.get((scope["method"], path))
            await (endpoint or self._app)(scope, receive, watched)
        except asyncio.CancelledError:  # the server ends, and its grace with it
            if started:
                raise
            await problem(ShuttingDown())(scope, receive, send)
        except Exception as error:
            answer = _answer(error, scope)
            if started:
                raise
            await answer(scope, receive, send)


def _normalized(scope: Scope) -> tuple[str, Scope]:
    """The one path of a resource, and a scope that has it: no final slash, no root path twice.

    A proxy may strip its prefix or pass it on; a server adds it in both cases.
    """
    root: str = scope.get("root_path", "")
    path: str = scope["path"].removeprefix(root)
    if root and path.startswith(f"{root}/"):
        path = path.removeprefix(root)
    raw = scope.get("raw_path") or path.encode()
    if raw.endswith(b"/") and path != "/":  # not %2F, which belongs to a name
        path = path.removesuffix("/")
    return path, {**scope, "path": root + path}


def _answer(error: Exception, scope: Scope) -> Response:
    if isinstance(error, SchedulerError):
        return problem(error)
    if isinstance(error, HTTPException):
        return _refused_by_router(error, scope)
    if isinstance(error, ClientDisconnect):
        return Response(status_code=400)  # nobody reads it
    request_id = secrets.token_hex(8)
    log.error("request_failed", request_id=request_id, path=scope["path"], exc_info=error)
    detail = f"This is our fault; the log tells more under request id {request_id}."
    facts = {"requestId": request_id}
    return Problem(500, "Internal Server Error", "internal_error", detail, facts)


def _refused_by_router(error: HTTPException, scope: Scope) -> Response:
    """No such path, or not with this method."""
    if scope["method"] == "OPTIONS" and scope["path"] == "*":  # the server as a whole
        return Response(status_code=204)
    if error.status_code != 405:
        detail = "There is nothing at this address; see /docs."
        return Problem(error.status_code, "Not Found", "not_found", detail)
    headers = {"Allow": ", ".join(sorted(_methods_at(scope) | {"OPTIONS"}))}
    if scope["method"] == "OPTIONS":
        return Response(status_code=204, headers=headers)
    detail = "This address does not take this method; Allow names those that it takes."
    return Problem(405, "Method Not Allowed", "method_not_allowed", detail, headers=headers)


def _methods_at(scope: Scope) -> set[str]:
    """Of every route that fits: /messages/batch is the address of a message as well."""
    routes = (route for route in scope["app"].routes if isinstance(route, Route))
    fitting = (route for route in routes if route.matches(scope)[0] is not Match.NONE)
    return {method for route in fitting for method in route.methods or ()}


def _route(path: str, methods: Mapping[str, Endpoint]) -> Route:
    """One route a path, so that a 405 tells of all its methods in Allow."""
    return Route(path, _Resource(methods), methods=list(methods))


class _Resource:
    """What is at one address: an endpoint a method."""

    def __init__(self, methods: Mapping[str, Endpoint]) -> None:
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Raises: SchedulerError."""
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        await self._methods[method](scope, receive, send)
