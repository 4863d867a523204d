"""/docs and /openapi.json: the API described, and tried out, without a byte from elsewhere."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.http import JSON, refuse_query
from scheduler_api.domain.errors import NotFound

# Swagger UI comes in an installed package; our own page and its starter beside this file.
_SWAGGER: Final = "mkdocs_swagger_ui_tag", "swagger-ui"
_FILES: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "swagger-ui.css": ((*_SWAGGER, "stylesheets", "swagger-ui.css"), "text/css"),
    "swagger-ui-bundle.js": (
        (*_SWAGGER, "javascripts", "swagger-ui-bundle.js"),
        "text/javascript",
    ),
    "docs.js": (("scheduler_api", "api", "static", "docs.js"), "text/javascript"),
    "docs.html": (("scheduler_api", "api", "static", "docs.html"), "text/html"),
}
# Swagger UI sets style attributes and shows its icons from data: URLs.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


async def page(request: Request) -> Response:
    """The page that shows the API and tries it out."""
    refuse_query(request)
    if request.scope["raw_path"].endswith(b"/"):  # its links are relative
        return Response(status_code=308, headers={"Location": "../docs"})
    return _answer("docs.html")


async def file(request: Request) -> Response:
    """A file that the page needs."""
    refuse_query(request)
    name = request.path_params["name"]
    if name not in _FILES:
        raise NotFound
    return _answer(name)


def openapi(document: dict[str, Any]) -> Any:
    """The handler that answers with the document."""

    async def answer(request: Request) -> Response:
        refuse_query(request)
        root = request.scope.get("root_path", "")
        return JSON(document | {"servers": [{"url": root}]} if root else document)

    return answer


def _answer(name: str) -> Response:
    return Response(_read(name), media_type=_FILES[name][1], headers=dict(_HEADERS))


@cache
def _read(name: str) -> bytes:
    package, *path = _FILES[name][0]
    return files(package).joinpath(*path).read_bytes()
