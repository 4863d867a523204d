"""Pages for people, with their files: /docs. A page loads nothing from another site."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scheduler_api.api.http import refuse_query
from scheduler_api.domain.errors import NotFound

_SWAGGER: Final = "mkdocs_swagger_ui_tag"  # a package that has the files of Swagger UI


class File(msgspec.Struct, frozen=True):
    """A file of an installed package."""

    package: str
    path: str  # in the package
    media_type: str

    @cache  # noqa: B019  there are few files, and they do not change
    def read(self) -> bytes:
        """The content of the file; it is read from disk once."""
        return files(self.package).joinpath(self.path).read_bytes()


class Page(msgspec.Struct, frozen=True):
    """A page and the files that it loads."""

    path: str  # of the page; its files are at paths below it
    index: File
    files: Mapping[str, File]  # name → file
    policy: str  # Content-Security-Policy

    def routes(self) -> list[Route]:
        """The routes of the page and of its files."""
        return [Route(self.path, self._index), Route(f"{self.path}/{{name}}", self._file)]

    async def _index(self, request: Request) -> Response:
        refuse_query(request)
        if request.scope["raw_path"].endswith(b"/"):  # the links of the page are relative
            return Response(status_code=308, headers={"Location": f"..{self.path}"})
        return self._response(self.index)

    async def _file(self, request: Request) -> Response:
        refuse_query(request)
        file = self.files.get(request.path_params["name"])
        if file is None:
            raise NotFound
        return self._response(file)

    def _response(self, file: File) -> Response:
        headers = {
            "Content-Security-Policy": self.policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
        }
        return Response(file.read(), media_type=file.media_type, headers=headers)


DOCS: Final = Page(
    path="/docs",
    index=File("scheduler_api", "api/static/docs/index.html", "text/html"),
    files={
        "docs.js": File("scheduler_api", "api/static/docs/docs.js", "text/javascript"),
        "swagger-ui.css": File(_SWAGGER, "swagger-ui/stylesheets/swagger-ui.css", "text/css"),
        "swagger-ui-bundle.js": File(
            _SWAGGER, "swagger-ui/javascripts/swagger-ui-bundle.js", "text/javascript"
        ),
    },
    # Swagger UI sets style attributes and shows its icons from data: URLs.
    policy="default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
)
