"""The OpenAPI document, from the routes and the structs."""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec

from scheduler_api import __version__
from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.http import problem
from scheduler_api.domain.errors import (
    FieldError,
    Invalid,
    SchedulerError,
    Unauthenticated,
    Unavailable,
)

REFERENCE: Final = "#/components/schemas/{name}"
_PATH_FIELD: Final = re.compile(r"{(\w+)}")


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


def _structs(endpoints: Iterable[Endpoint]) -> list[Any]:
    answers = [answer for endpoint in endpoints for answer in endpoint.answers.values()]
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body]
    return [*answers, *bodies, ProblemDetails, InvalidDetails]


def _operation(path: str, endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": endpoint.handle.__name__.rstrip("_"),
        "parameters": [*map(_path_parameter, _PATH_FIELD.findall(path)), *_query(endpoint)],
        "responses": _responses(endpoint),
    }
    if endpoint.public:
        operation["security"] = []
    if endpoint.body:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.body)}
    return operation


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(endpoint: Endpoint) -> list[dict[str, Any]]:
    if not endpoint.query:
        return []
    (_, components) = msgspec.json.schema_components([endpoint.query])
    properties = components[endpoint.query.__name__]["properties"]
    return [_query_parameter(name, schema) for name, schema in properties.items()]


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    responses = {
        str(status): {"description": HTTPStatus(status).phrase, "content": _content(answer)}
        for status, answer in endpoint.answers.items()
    }
    for error in _errors(endpoint):
        answer = problem(error([]) if error is Invalid else error())
        responses.setdefault(str(answer.status_code), _error_response(error, answer.headers))
    return responses


def _errors(endpoint: Endpoint) -> list[type[SchedulerError]]:
    every = [] if endpoint.public else [Unauthenticated, Unavailable]
    return [*endpoint.errors, *every]


def _error_response(error: type[SchedulerError], headers: Mapping[str, str]) -> dict[str, Any]:
    details = InvalidDetails if error is Invalid else ProblemDetails
    own = [name for name in ("WWW-Authenticate", "Retry-After") if name in headers]
    return {
        "description": (error.__doc__ or "").strip(),
        "content": _content(details, "application/problem+json"),
        "headers": {name: {"schema": {"type": "string"}} for name in own},
    }


def _content(struct: Any, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": REFERENCE.format(name=struct.__name__)}}}
