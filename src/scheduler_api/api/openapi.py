"""The OpenAPI document, made from the endpoints and their structs, and its response."""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Annotated, Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api import __version__
from scheduler_api.api.endpoint import Endpoint
from scheduler_api.api.fields import EXAMPLE_ID, described
from scheduler_api.api.http import JSON, Problem, problem, refuse_query
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

_REFERENCE: Final = "#/components/schemas/{name}"
TAGS: Final[Mapping[str, str]] = {  # first part of the path → what the operations are for
    "messages": "Schedule, find and cancel messages.",
    "destinations": "See how each destination is doing, and limit what it gets.",
    "health": "Check whether the service works. Needs no token.",
}
_DESCRIPTION: Final = """\
Sends webhooks at a later time: you give a URL, a payload and a time.

Errors are `application/problem+json` (RFC 9457). `code` is a stable word for programs, `detail` \
says what to do.
"""
_TOKEN_DESCRIPTION: Final = "The value of `API_TOKEN`. It has every scope."  # noqa: S105  no secret
_PATH_FIELD: Final = re.compile(r"{(\w+)}")
# ASCII letters, digits, _ . - and all that is not ASCII, for international names.
_HOST_CHARACTER: Final = r"[^\u0000-,/:-@\[-\^`{-\u007f]"
_PATH_PARAMETERS: Final[Mapping[str, tuple[str, str, Mapping[str, Any]]]] = {
    # name → description, example, schema
    "id": ("ID of the message.", EXAMPLE_ID, {}),
    "host": (
        "Name of the destination: host, or `host:port` for a port other than 80 and 443.",
        "n8n.example:5678",
        {
            "maxLength": MAX_AUTHORITY,
            # Excludes only what no host has: parse_destination has the rules.
            "pattern": rf"^(?:{_HOST_CHARACTER}+|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{{0,4}})?$",
        },
    ),
}
# Status → the header that its responses have, its description, an example.
_HEADERS: Final[Mapping[int, tuple[str, str, str]]] = {
    201: ("Location", "Path of the new message.", f"/messages/{EXAMPLE_ID}"),
    401: ("WWW-Authenticate", "Scheme of the credential.", "Bearer"),
    503: ("Retry-After", "Seconds to wait before you send the request again.", "1"),
}
_WRONG_FIELD: Final = FieldError("/webhookUrl", "this field is required")  # an example


class ProblemDetails(msgspec.Struct):
    """An error, as RFC 9457 defines it; some errors have further fields."""

    type: Annotated[str, described("Always `about:blank`; see `code`.", "about:blank")]
    title: Annotated[str, described("Name of the status.", "Not Found")]
    status: Annotated[int, described("Status of the response.", 404)]
    detail: Annotated[
        str, described("What is wrong and what to do.", "There is no message with this id.")
    ]
    code: Annotated[str, described("Stable word for programs.", "message_not_found")]


class InvalidDetails(ProblemDetails):
    """A request with wrong fields."""

    errors: Annotated[list[FieldError], described("Each wrong field.")]


def reference(struct: type) -> dict[str, str]:
    """The schema that refers to a struct of the document."""
    return {"$ref": _REFERENCE.format(name=struct.__name__)}


def document(resources: Mapping[str, Mapping[str, Endpoint]]) -> dict[str, Any]:
    """The document. `resources`: path → method → endpoint."""
    endpoints = [endpoint for methods in resources.values() for endpoint in methods.values()]
    structs = _structs(endpoints)
    _, components = msgspec.json.schema_components(structs, ref_template=_REFERENCE)
    for struct in structs:
        if getattr(struct, "__struct_config__", None) and struct.__struct_config__.omit_defaults:
            _replace_null_by_absence(components[struct.__name__]["properties"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Scheduler API",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {
            path: {method.lower(): _operation(path, one) for method, one in methods.items()}
            for path, methods in resources.items()
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": _TOKEN_DESCRIPTION}
            },
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
    responses = [struct for endpoint in endpoints for struct in endpoint.responses.values()]
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body]
    return [*responses, *bodies, ProblemDetails, InvalidDetails]


def _replace_null_by_absence(properties: Mapping[str, dict[str, Any]]) -> None:
    """Describe fields that are null by default as absent: responses omit defaults."""
    for schema in properties.values():
        if "default" in schema and schema["default"] is None:
            del schema["default"]
            (kind,) = (one for one in schema.pop("anyOf") if one != {"type": "null"})
            schema.update(kind)


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
        content = _content(endpoint.body, example=endpoint.example)
        operation["requestBody"] = {"required": True, "content": content}
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
    description, example, more = _PATH_PARAMETERS[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "example": example,
        "schema": {"type": "string", "minLength": 1, **more},
    }


def _query(endpoint: Endpoint) -> list[dict[str, Any]]:
    if not endpoint.query:
        return []
    (_, components) = msgspec.json.schema_components([endpoint.query])
    properties = components[endpoint.query.__name__]["properties"]
    return [_query_parameter(name, schema) for name, schema in properties.items()]


def _query_parameter(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    description = schema.pop("description")
    return {"name": name, "in": "query", "description": description, "schema": schema}


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    successes = {
        status: _response(status, _docstring(struct), _content(struct))
        for status, struct in endpoint.responses.items()
    }
    errors: dict[int, list[type[SchedulerError]]] = {}
    for error in _errors(endpoint):
        errors.setdefault(_sample(error).status_code, []).append(error)
    refusals = {status: _error_response(status, found) for status, found in errors.items()}
    return {str(status): response for status, response in sorted((refusals | successes).items())}


def _docstring(one: type) -> str:
    return (one.__doc__ or "").strip()


def _errors(endpoint: Endpoint) -> list[type[SchedulerError]]:
    every = [Unauthenticated, StoreUnavailable, OutcomeUnknown, StoreFull]
    every += [MemoryFull] if endpoint.body else []
    of_query = [] if endpoint.any_query or Invalid in endpoint.errors else [Invalid]
    return [*endpoint.errors, *of_query, *(every if endpoint.scope else [])]


def _sample(error: type[SchedulerError]) -> Problem:
    """A response with this error."""
    return problem(error([_WRONG_FIELD]) if error is Invalid else error())


def _error_response(status: int, errors: Iterable[type[SchedulerError]]) -> dict[str, Any]:
    """One response for all errors of a status, which differ in their codes."""
    description = "\n\n".join(f"`{error.code}`: {_docstring(error)}" for error in errors)
    details = InvalidDetails if Invalid in errors else ProblemDetails
    examples = {error.code: {"value": msgspec.json.decode(_sample(error).body)} for error in errors}
    return _response(status, description, _content(details, Problem.media_type, examples=examples))


def _response(status: int, description: str, content: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": description, "content": content}
    if status in _HEADERS:
        name, meaning, example = _HEADERS[status]
        header = {"description": meaning, "example": example, "schema": {"type": "string"}}
        response["headers"] = {name: {"required": True, **header}}
    return response


def _content(struct: type, media_type: str = JSON.media_type, **examples: Any) -> dict[str, Any]:
    return {media_type: {"schema": reference(struct), **examples}}
