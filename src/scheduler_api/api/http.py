"""Decodes bodies and queries, encodes JSON and problem+json, maps errors to statuses."""

from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from scheduler_api.domain.errors import (
    Conflict,
    FieldError,
    HeadTooLarge,
    Invalid,
    Malformed,
    MemoryFull,
    NotFound,
    PayloadTooLarge,
    RequestTimeout,
    SchedulerError,
    TooManyConnections,
    Unauthenticated,
    Unavailable,
)
from scheduler_api.domain.field_errors import field_error

T = TypeVar("T")

# Family of errors → status and title. The first one that an error belongs to counts.
STATUSES: Final[tuple[tuple[type[SchedulerError], int, str], ...]] = (
    (PayloadTooLarge, 413, "Content Too Large"),
    (HeadTooLarge, 431, "Request Header Fields Too Large"),
    (RequestTimeout, 408, "Request Timeout"),
    (Malformed, 400, "Bad Request"),
    (Unauthenticated, 401, "Unauthorized"),
    (NotFound, 404, "Not Found"),
    (Conflict, 409, "Conflict"),
    (Invalid, 422, "Unprocessable Content"),
    (Unavailable, 503, "Service Unavailable"),
)

_encode = msgspec.json.Encoder(enc_hook=str).encode


class JSON(Response):
    """A value as JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return _encode(content)

    def init_headers(self, headers: Mapping[str, str] | None = None) -> None:
        """Content-Length, Content-Type and `headers`, which have neither of them.

        Starlette's own method searches `headers` for both, which takes time.
        """
        self.raw_headers = [
            (b"content-length", str(len(self.body)).encode()),
            (b"content-type", self.media_type.encode()),
        ]
        for name, value in (headers or {}).items():
            self.raw_headers.append((name.lower().encode(), value.encode("latin-1")))


class Problem(JSON):
    """An error response as RFC 9457 defines it."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        title: str,
        code: str,
        detail: str,
        facts: Mapping[str, Any] = {},
        headers: Mapping[str, str] | None = None,
    ) -> None:
        body = {"type": "about:blank", "title": title, "status": status}
        super().__init__(body | {"detail": detail, "code": code, **facts}, status, headers)


def problem(error: SchedulerError) -> Problem:
    """The response to an error."""
    status, title = next((s, t) for family, s, t in STATUSES if isinstance(error, family))
    facts, headers = dict(error.facts), {}
    if isinstance(error, Invalid):
        facts["errors"] = error.errors
    elif isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, PayloadTooLarge | MemoryFull | TooManyConnections):
        headers["Connection"] = "close"  # the rest of the body stays unread
    return Problem(status, title, error.code, str(error), facts, headers)


def header(scope: Scope, name: bytes) -> bytes | None:
    """The value of the first header with this lower-case name; None without one."""
    for found, value in scope["headers"]:
        if found == name:
            given: bytes = value
            return given
    return None


def decode(body: bytes, decoder: msgspec.json.Decoder[T], fields: Iterable[str]) -> T:
    """The value of a JSON body; `fields`: the known names, for a hint.

    Raises: Malformed (not JSON), Invalid (JSON that the decoder refuses).
    """
    if body.startswith(BOM_UTF8):  # RFC 8259, section 8.1, allows it
        body = body[len(BOM_UTF8) :]
    try:
        body.decode()  # msgspec does not look into raw values
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise Invalid([field_error(str(error), decoder.type, fields)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = _reason(error) if body.strip() else "it is empty"
        raise Malformed(f"The body is not valid JSON in UTF-8: {reason}.") from None


def query(request: Request, form: type[T], fields: Iterable[str]) -> T:
    """The query string as a struct; `fields`: the known names, for a hint. Raises: Invalid."""
    try:
        return msgspec.convert(dict(request.query_params), form, strict=False)
    except msgspec.ValidationError as error:
        wrong = field_error(str(error), form, fields)
        message = wrong.message.removesuffix(", not a string")  # every value of a query is text
        raise Invalid([FieldError(f"?{wrong.path[1:]}", message)]) from None


class _NoFields(msgspec.Struct, forbid_unknown_fields=True):
    """The query of an operation that takes none."""


def refuse_query(request: Request) -> None:
    """Refuse every query field. Raises: Invalid."""
    query(request, _NoFields, ())


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start} is not UTF-8"
    return str(error).removeprefix("JSON is malformed: ")
