"""The service answers generated requests as its OpenAPI document says (Schemathesis)."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import CHECKS

from scheduler_api.api.app import RESOURCES
from scheduler_api.api.openapi import document
from tests.api.conftest import Api
from tests.support.factories import URL

EXAMPLES = 100  # requests of each operation and mode
SEED = 20_260_415
AGREEMENT = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
SCHEMA = schemathesis.openapi.from_dict(
    msgspec.json.decode(msgspec.json.encode(document(RESOURCES)))
)
OPERATIONS = [(path, method.upper()) for path, methods in RESOURCES.items() for method in methods]

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:schemathesis.*"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:jsonschema.*"),
    pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning:urllib3.*"),
]


def checks(*names: str) -> list[Any]:
    return list(CHECKS.get_by_names(list(names)))


def explore(cases: st.SearchStrategy[Case[Any]], ask: Callable[[Case[Any]], None]) -> None:
    """Call `ask` with generated cases; every run generates the same ones."""

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def run(case: Case[Any]) -> None:
        ask(case)

    run()


def callable_url(case: Case[Any]) -> Case[Any]:
    """The case with URLs that the egress rules allow, so that its messages are stored."""
    body: Any = case.body
    if isinstance(body, dict):
        for message in body.get("messages", [body]):
            if "webhookUrl" in message:
                message["webhookUrl"] = URL
    return case


@pytest.mark.parametrize(("path", "method"), OPERATIONS)
async def test_request_that_the_document_allows_gets_a_documented_response(
    api: Api, path: str, method: str
) -> None:
    statuses: set[int] = set()

    def ask(case: Case[Any]) -> None:
        response = callable_url(case).call(base_url=base(api), headers=dict(api.client.headers))
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks(*AGREEMENT))

    await asyncio.to_thread(explore, SCHEMA[path][method].as_strategy(), ask)
    assert statuses & {200, 201, 404}, statuses


@pytest.mark.parametrize(
    ("path", "method"),
    [("/messages", "POST"), ("/messages", "GET"), ("/destinations/{host}", "PUT")],
)
async def test_request_that_the_document_forbids_is_refused_as_documented(
    api: Api, path: str, method: str
) -> None:
    statuses: set[int] = set()

    def ask(case: Case[Any]) -> None:
        response = case.call(base_url=base(api), headers=dict(api.client.headers))
        statuses.add(response.status_code)
        case.validate_response(response, checks=checks(*AGREEMENT, "negative_data_rejection"))

    cases = SCHEMA[path][method].as_strategy(GenerationMode.NEGATIVE)
    await asyncio.to_thread(explore, cases, ask)
    assert statuses & {400, 422}, statuses


def base(api: Api) -> str:
    return f"http://127.0.0.1:{api.port}"
