"""The OpenAPI document, made from the endpoints and their structs, and its response."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api import __version__
from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import JSON, problem, refuse_query
from scheduler_api.domain.errors import (
    FieldError,
    Invalid,
    MemoryFull,
    OutcomeUnknown,
    SchedulerError,
    StoreFull,
    StoreUnavailable,
    Unauthenticated,
)
from scheduler_api.domain.url import MAX_AUTHORITY

REFERENCE: Final = "#/components/schemas/{name}"
_PATH_FIELD: Final = re.compile(r"{(\w+)}")
# Name in a path → what it looks like.
_PATH_SCHEMAS: Final = {
    "host": {
        "maxLength": MAX_AUTHORITY,
        "pattern": r"^(?:[0-9A-Za-z_.-]+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?$",
    }
}
# Status → the header that its answers have.
_HEADERS: Final = {201: "Location", 401: "WWW-Authenticate", 503: "Retry-After"}


class ProblemDetails(msgspec.Struct):
    """An error by RFC 9457; further members tell more of some."""

    type: str
    title: str
    status: int
    detail: str  # a sentence that says what to do
    code: str  # stable word


class InvalidDetails(ProblemDetails):
    """A request with wrong fields."""

    errors: list[FieldError]


def document(resources: Mapping[str, Mapping[str, Endpoint]]) -> dict[str, Any]:
    """`resources`: path → method → endpoint."""
    endpoints = [endpoint for methods in resources.values() for endpoint in methods.values()]
    schemas, components = msgspec.json.schema_components(
        _structs(endpoints), ref_template=REFERENCE
    )
    del schemas
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scheduler API",
            "version": __version__,
            "description": "Send a webhook to the future: this payload, to this URL, "
            "at this instant.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": {
            path: {method.lower(): _operation(path, one) for method, one in methods.items()}
            for path, methods in resources.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def serve(document: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    """The handler of `/openapi.json`."""

    async def handle(request: Request) -> Response:
        refuse_query(request)
        root = request.scope.get("root_path", "")
        return JSON(document | {"servers": [{"url": root}]} if root else document)

    return handle


def _structs(endpoints: Iterable[Endpoint]) -> list[Any]:
    answers = [answer for endpoint in endpoints for answer in endpoint.responses.values()]
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body]
    return [*answers, *bodies, ProblemDetails, InvalidDetails]


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _operation_id(endpoint),
        "tags": [path.split("/")[1]],
        "parameters": [*map(_path_parameter, _PATH_FIELD.findall(path)), *_query(endpoint)],
        "responses": _responses(endpoint),
    }
    operation["security"] = [{"token": [endpoint.scope]}] if endpoint.scope else []
    if description := _description(endpoint):
        operation["description"] = description
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.body)}
    return operation


def _description(endpoint: Endpoint) -> str:
    """What the summary leaves out, and what the caller needs."""
    needs = f"Needs a token with the scope `{endpoint.scope}`." if endpoint.scope else ""
    return "\n\n".join(text for text in (endpoint.description, needs) if text)


def _operation_id(endpoint: Endpoint) -> str:
    """Resource and verb: `messages_create`. The resource is the module or folder below `api`."""
    resource = endpoint.handle.__module__.split(".")[2]
    return f"{resource}_{endpoint.handle.__name__.rstrip('_')}"


def _path_parameter(name: str) -> dict[str, Any]:
    schema = {"type": "string", "minLength": 1} | _PATH_SCHEMAS.get(name, {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(endpoint: Endpoint) -> list[dict[str, Any]]:
    if not endpoint.query:
        return []
    (_, components) = msgspec.json.schema_components([endpoint.query])
    properties = components[endpoint.query.__name__]["properties"]
    return [_query_parameter(name, schema) for name, schema in properties.items()]


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    answers = {
        status: _response(status, HTTPStatus(status).phrase, _content(answer))
        for status, answer in endpoint.responses.items()
    }
    errors: dict[int, list[type[SchedulerError]]] = {}
    for error in _errors(endpoint):
        errors.setdefault(_status(error), []).append(error)
    refusals = {status: _error_response(status, found) for status, found in errors.items()}
    return {str(status): response for status, response in sorted((refusals | answers).items())}


def _errors(endpoint: Endpoint) -> list[type[SchedulerError]]:
    every = [Unauthenticated, StoreUnavailable, OutcomeUnknown, StoreFull]
    every += [MemoryFull] if endpoint.body else []
    of_query = [] if endpoint.any_query or Invalid in endpoint.errors else [Invalid]
    return [*endpoint.errors, *of_query, *(every if endpoint.scope else [])]


def _status(error: type[SchedulerError]) -> int:
    return problem(error([]) if error is Invalid else error()).status_code


def _error_response(status: int, errors: Iterable[type[SchedulerError]]) -> dict[str, Any]:
    """One answer for all errors of a status; their codes tell them apart."""
    words = "\n\n".join(f"`{error.code}`: {(error.__doc__ or '').strip()}" for error in errors)
    details = InvalidDetails if Invalid in errors else ProblemDetails
    return _response(status, words, _content(details, "application/problem+json"))


def _response(status: int, description: str, content: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": description, "content": content}
    if name := _HEADERS.get(status):
        response["headers"] = {name: {"required": True, "schema": {"type": "string"}}}
    return response


def _content(struct: Any, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": REFERENCE.format(name=struct.__name__)}}}
