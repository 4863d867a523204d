"""Routing: the endpoint of a request, and the response if there is none.

A path with a final slash is the same as the path without. `Allow` names every method of a path.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import Problem, problem
from scheduler_api.domain.errors import NotFound, ShuttingDown

Resources = Mapping[str, Mapping[str, Endpoint]]  # path → method → endpoint


def routes(resources: Resources) -> list[Route]:
    """A route for each endpoint."""
    return [
        Route(path, endpoint, methods=[method])
        for path, methods in resources.items()
        for method, endpoint in methods.items()
    ]


class Router:
    """Calls the endpoint of a request, and sends the response to its error.

    It finds fixed paths by one lookup; Starlette's router, which has the other paths, tries one
    route after the other, which would cost more than all the rest.
    """

    def __init__(
        self,
        resources: Resources,
        others: ASGIApp,
        response_to: Callable[[Exception, Scope], Response],
    ) -> None:
        """`others`: Starlette's router; it also runs the lifespan."""
        self._fixed: Final[Mapping[tuple[str, str], Endpoint]] = {
            (method, path): endpoint
            for path, methods in resources.items()
            for method, endpoint in methods.items()
            if "{" not in path
        }
        self._others = others
        self._response_to = response_to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or run the lifespan."""
        if scope["type"] != "http":
            await self._others(scope, receive, send)
            return
        endpoint = self._fixed.get((scope["method"], scope["path"]))
        if endpoint is None:
            path, scope = _normalized(scope)
            endpoint = self._fixed.get((scope["method"], path))
        if endpoint is None:
            await self._call_others(scope, receive, send)
            return
        try:
            response = await endpoint.respond(scope, receive)
        except (Exception, asyncio.CancelledError) as error:
            response = self._failed(error, scope)
        await response(scope, receive, send)

    async def _call_others(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._others(scope, receive, watched)
        except (Exception, asyncio.CancelledError) as error:
            response = self._failed(error, scope)
            if started:
                raise
            await response(scope, receive, send)

    def _failed(self, error: Exception | asyncio.CancelledError, scope: Scope) -> Response:
        if isinstance(error, asyncio.CancelledError):  # the server stops: its grace period is over
            return self._response_to(ShuttingDown(), scope)
        return self._response_to(error, scope)


def _normalized(scope: Scope) -> tuple[str, Scope]:
    """The path without its root path and its final slash, and a scope with that path.

    A proxy may remove its prefix or pass it on; the server adds the root path in both cases.
    """
    root: str = scope.get("root_path", "")
    path: str = scope["path"].removeprefix(root)
    if root and path.startswith(f"{root}/"):
        path = path.removeprefix(root)
    raw = scope.get("raw_path") or path.encode()
    if raw.endswith(b"/") and path != "/":  # not %2F, which belongs to a name
        path = path.removesuffix("/")
    return path, {**scope, "path": root + path}


def refusal(error: HTTPException, scope: Scope) -> Response:
    """The response if Starlette's router found no such path, or no such method of it."""
    if scope["method"] == "OPTIONS" and scope["path"] == "*":  # the server as a whole
        return Response(status_code=204)
    if error.status_code != 405:
        return problem(NotFound())
    headers = {"Allow": ", ".join(sorted(_methods_at(scope) | {"OPTIONS"}))}
    if scope["method"] == "OPTIONS":
        return Response(status_code=204, headers=headers)
    detail = "This path does not support this method; use a method that the header Allow names."
    return Problem(405, "Method Not Allowed", "method_not_allowed", detail, headers=headers)


def _methods_at(scope: Scope) -> set[str]:
    """The methods of every route that matches; /messages/batch matches /messages/{id} too."""
    return {method for route in _matching(scope) for method in route.methods or ()}


def _matching(scope: Scope) -> Iterable[Route]:
    every: Iterable[BaseRoute] = scope["app"].routes
    return (
        route
        for route in every
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE
    )
