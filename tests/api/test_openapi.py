"""openapi.py: the document is valid and complete, and says what is enforced."""

import re
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from scheduler_api import __version__
from scheduler_api.api.app import RESOURCES, create_app
from scheduler_api.api.http import problem
from scheduler_api.api.openapi import document
from scheduler_api.domain import errors
from scheduler_api.domain.accept import check_id
from scheduler_api.domain.errors import Invalid, SchedulerError
from scheduler_api.domain.message import MAX_DELAY, NewMessage
from scheduler_api.domain.url import parse_destination
from tests.api.conftest import Api

ABOUT_ITSELF = {"/docs", "/docs/{name}", "/openapi.json"}
DOCUMENT = document(RESOURCES)
SCHEMAS = DOCUMENT["components"]["schemas"]
NEW = SCHEMAS["NewMessage"]["properties"]
OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    (path, method, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]


async def test_openapi_json_is_the_document(api: Api) -> None:
    async with api.client.get("/openapi.json") as response:
        assert await response.json() == DOCUMENT


def test_document_is_valid_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1")
    assert list(OpenAPIV31SpecValidator(DOCUMENT).iter_errors()) == []


def test_document_has_our_version_and_only_this_server() -> None:
    assert DOCUMENT["info"]["version"] == __version__
    assert DOCUMENT["servers"] == [{"url": "/"}]


def test_document_contains_every_route() -> None:
    routes = [route for route in create_app().routes if isinstance(route, Route)]
    served = {
        (route.path, method)
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}
        if route.path not in ABOUT_ITSELF
    }
    assert served == {(path, method.upper()) for path, method, _ in OPERATIONS}
    assert {route.path for route in routes} >= ABOUT_ITSELF


def test_operation_has_its_own_name_and_the_tag_of_its_resource() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]
    assert len(names) == len(set(names))
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, _, operation in OPERATIONS:
        assert operation["tags"] == [path.split("/")[1]]
        assert set(operation["tags"]) <= tags


def test_operation_has_a_summary_of_one_line_that_begins_with_a_verb() -> None:
    verbs = {"Cancel", "Delete", "List", "Schedule", "Set", "Show"}
    for _, _, operation in OPERATIONS:
        assert operation["summary"].split()[0] in verbs
        assert len(operation["summary"]) < 80
        assert "\n" not in operation["summary"]


def test_parameter_and_header_has_a_description_and_an_example() -> None:
    for path, _, operation in OPERATIONS:
        for parameter in operation["parameters"]:
            assert parameter["description"], path
            assert "example" in parameter or "examples" in parameter["schema"], path
        for response in operation["responses"].values():
            assert response["description"], path
            for header in response.get("headers", {}).values():
                assert header["description"]
                assert "example" in header


@pytest.mark.parametrize(
    ("name", "field", "schema"),
    [
        (name, field, schema)
        for name, struct in SCHEMAS.items()
        for field, schema in struct["properties"].items()
    ],
)
def test_field_has_a_description_and_an_example(
    name: str, field: str, schema: dict[str, Any]
) -> None:
    assert schema["description"], (name, field)
    refers = "$ref" in str(schema)  # the struct that it refers to has the examples
    assert "examples" in schema or "enum" in schema or refers, (name, field)


@pytest.mark.parametrize("name", SCHEMAS)
def test_struct_has_a_description(name: str) -> None:
    assert SCHEMAS[name]["description"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_error_response_lists_codes_of_its_status(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    known = {one.code: one for one in vars(errors).values() if is_error(one)}
    described = [*RESOURCES[path][method.upper()].errors]
    for status, response in operation["responses"].items():
        if "application/problem+json" in response["content"]:
            codes = re.findall(r"^`(\w+)`: \w", response["description"], re.MULTILINE)
            assert codes
            assert {status_of(known[code]) for code in codes} == {int(status)}
            described = [error for error in described if error.code not in codes]
    assert described == []


def is_error(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, SchedulerError)


def test_error_response_has_an_example_for_each_of_its_codes() -> None:
    responses = [one for _, _, operation in OPERATIONS for one in operation["responses"].items()]
    for status, response in responses:
        content = response["content"].get("application/problem+json", {"examples": {}})
        for code, example in content["examples"].items():
            assert (example["value"]["code"], example["value"]["status"]) == (code, int(status))
            assert f"`{code}`: " in response["description"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
async def test_example_of_a_body_is_a_request_that_succeeds(
    api: Api, path: str, method: str, operation: dict[str, Any]
) -> None:
    """The page /docs offers the example as the request to try out."""
    if "requestBody" in operation:
        example = operation["requestBody"]["content"]["application/json"]["example"]
        path = path.format(host="n8n.example")
        async with api.client.request(method, path, json=example) as response:
            found = await response.json()
            assert response.status in (200, 201), found
            assert {result["status"] for result in found.get("results", [])} <= {201}


def status_of(error: type[SchedulerError]) -> int:
    return problem(error([]) if error is Invalid else error()).status_code


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_operation_names_its_scope_and_401_only_if_it_needs_a_token(
    path: str, method: str, operation: dict[str, Any]
) -> None:
    scope = RESOURCES[path][method.upper()].scope
    assert operation["security"] == ([{"token": [scope]}] if scope else [])
    assert ("401" in operation["responses"]) is (scope is not None)
    assert (f"scope `{scope}`" in operation.get("description", "")) is (scope is not None)


def test_scope_of_an_operation_is_that_of_the_contract() -> None:
    scopes = {
        f"{method.upper()} {path}": RESOURCES[path][method.upper()].scope
        for path, method, _ in OPERATIONS
    }
    assert scopes == {
        "GET /messages": "read",
        "POST /messages": "write",
        "POST /messages/batch": "write",
        "GET /messages/{id}": "read",
        "DELETE /messages/{id}": "write",
        "GET /destinations": "read",
        "GET /destinations/{host}": "read",
        "PUT /destinations/{host}": "admin",
        "DELETE /destinations/{host}": "admin",
        "GET /health": None,
        "GET /health/live": None,
        "GET /health/ready": None,
    }


def test_document_lists_the_headers_of_responses() -> None:
    responses = DOCUMENT["paths"]["/messages"]["post"]["responses"]
    headers = {status: list(one.get("headers", {})) for status, one in responses.items()}
    assert (headers["201"], headers["401"], headers["503"]) == (
        ["Location"],
        ["WWW-Authenticate"],
        ["Retry-After"],
    )
    assert headers["422"] == []


def test_document_defines_every_referenced_struct() -> None:
    text = msgspec.json.encode(DOCUMENT).decode()
    names = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert names
    assert names <= set(SCHEMAS)


def test_schema_of_a_payload_allows_any_value_and_none() -> None:
    assert not {"type", "$ref", "anyOf"} & set(NEW["payload"])
    assert SCHEMAS["NewMessage"]["required"] == ["webhookUrl"]
    assert "payload" not in SCHEMAS["MessageView"]["required"]


def test_schema_of_a_shown_message_leaves_out_null_options() -> None:
    shown = SCHEMAS["MessageView"]
    for name, kind in [("delay", "number"), ("timezone", "string"), ("timeout", "number")]:
        assert shown["properties"][name]["type"] == kind
        assert not {"anyOf", "default"} & set(shown["properties"][name])
        assert name not in shown["required"]


def test_schema_of_an_instant_is_a_date_time() -> None:
    for name, field in [
        ("Created", "scheduledFor"),
        ("MessageView", "createdAt"),
        ("MessageRow", "nextRun"),
        ("MessageList", "timestamp"),
        ("AttemptView", "startedAt"),
    ]:
        assert SCHEMAS[name]["properties"][field]["format"] == "date-time"


def test_schema_of_a_new_message_has_exactly_the_fields_of_the_struct() -> None:
    assert set(NEW) == set(NewMessage.__struct_encode_fields__)
    assert SCHEMAS["NewMessage"]["additionalProperties"] is False


def test_schema_has_the_methods_and_limits_that_are_enforced() -> None:
    methods, null = NEW["method"]["anyOf"]
    assert null == {"type": "null"}
    assert set(methods["enum"]) == {"GET", "POST", "PUT", "PATCH", "DELETE"}
    assert NEW["webhookUrl"]["maxLength"] == 2048
    assert (NEW["timeout"]["minimum"], NEW["timeout"]["maximum"]) == (1, 900)
    assert NEW["delay"]["maximum"] == MAX_DELAY.total_seconds()
    assert NEW["headers"]["maxProperties"] == 50
    limit, cursor = DOCUMENT["paths"]["/messages"]["get"]["parameters"]
    assert (limit["schema"]["minimum"], limit["schema"]["maximum"]) == (1, 1000)
    assert cursor["schema"]["type"] == "string"


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        *(
            (host, True)
            for host in ("h", "N8N.example:5678", "a_b-c.d.", "[::1]:8443", "olá.example")
        ),
        *((host, False) for host in ("", "a b", "a/b", "u@h", "h:0", "h:", "[g]", "a\x7f", "a\nb")),
    ],
)
def test_schema_of_a_host_excludes_what_no_host_has(host: str, allowed: bool) -> None:
    parameter, *_ = DOCUMENT["paths"]["/destinations/{host}"]["get"]["parameters"]
    assert (re.search(parameter["schema"]["pattern"], host) is not None) is allowed
    if allowed:
        assert parse_destination(host)


@pytest.mark.parametrize(
    "text", ["a", "a b", "é", "", "a/b", "\n", "\x7f", "\u2028", ".", "..", "..."]
)
@pytest.mark.parametrize("size", [1, 255, 256])
def test_schema_of_an_id_allows_what_the_check_allows(text: str, size: int) -> None:
    wanted, schema = text * size if len(text) == 1 else text, NEW["id"]
    by_schema = (
        schema["minLength"] <= len(wanted) <= schema["maxLength"]
        and re.search(schema["pattern"], wanted) is not None
        and wanted not in schema["not"]["enum"]
    )
    assert by_schema is passes(wanted)


def passes(message_id: str) -> bool:
    try:
        return check_id(message_id) == message_id
    except ValueError:
        return False
