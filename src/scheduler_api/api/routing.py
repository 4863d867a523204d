"""Routing: which endpoint answers a request, and what is answered where there is none.

A final slash means the same as none, and `Allow` names every method of an address.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.routing import Router as StarletteRouter
from starlette.types import ASGIApp, Scope

from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import Problem

Resources = Mapping[str, Mapping[str, Endpoint]]  # path → method → endpoint


def routes(resources: Resources) -> list[Route]:
    """A route for each endpoint."""
    return [
        Route(path, endpoint, methods=[method])
        for path, methods in resources.items()
        for method, endpoint in methods.items()
    ]


class Router:
    """Finds what answers a request: fixed paths by one lookup, all others by Starlette's router."""

    def __init__(self, resources: Resources, others: StarletteRouter) -> None:
        # Trying one route after the other costs more than the rest of the routing.
        self._fixed: Final[Mapping[tuple[str, str], Endpoint]] = {
            (method, path): endpoint
            for path, methods in resources.items()
            for method, endpoint in methods.items()
            if "{" not in path
        }
        self.others: Final = others

    def find(self, scope: Scope) -> tuple[ASGIApp, Scope]:
        """The endpoint, and the scope to call it with."""
        endpoint = self._fixed.get((scope["method"], scope["path"]))
        if endpoint is not None:
            return endpoint, scope
        path, scope = _normalized(scope)
        return self._fixed.get((scope["method"], path), self.others), scope


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
    """The response where Starlette's router found no path, or not with this method."""
    if scope["method"] == "OPTIONS" and scope["path"] == "*":  # the server as a whole
        return Response(status_code=204)
    if error.status_code != 405:
        detail = "There is nothing at this address; see /docs."
        return Problem(error.status_code, "Not Found", "not_found", detail)
    headers = {"Allow": ", ".join(sorted(_methods_at(scope) | {"OPTIONS"}))}
    if scope["method"] == "OPTIONS":
        return Response(status_code=204, headers=headers)
    detail = "This address does not support this method; use one of those in the header Allow."
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
