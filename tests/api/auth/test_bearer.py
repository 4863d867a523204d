"""bearer.py: wrong tokens are refused, and some paths need none."""

import pytest

from scheduler_api.api.app import RESOURCES
from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.domain.access import Principal
from scheduler_api.store.store import Store
from tests.api.conftest import TOKEN, Api, Scheduler, application, opened
from tests.support.factories import URL
from tests.support.problems import problem

GUARDED = [
    (method, path)
    for path, methods in RESOURCES.items()
    for method, endpoint in methods.items()
    if endpoint.scope is not None
]
WRONG = [
    "",
    "Bearer",
    "Bearer ",
    "Bearer wrong",
    f"Bearer {TOKEN}x",
    f"Bearer {TOKEN} x",
    f"Basic {TOKEN}",
    TOKEN,
    f"Bearer{TOKEN}",
    f"Bearer {TOKEN.upper()}",
    "Bearer olá",
    "Bearer \xff\xa0",
]


@pytest.mark.parametrize(("method", "path"), GUARDED)
async def test_request_with_a_wrong_token_gets_401(api: Api, method: str, path: str) -> None:
    headers = {"Authorization": "Bearer wrong"}
    async with api.client.request(method, path, headers=headers, json={}) as response:
        await problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("value", WRONG)
def test_authenticate_returns_none_for_a_wrong_header(value: str) -> None:
    assert BearerToken(TOKEN).authenticate(value.encode("latin-1")) is None


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER  {TOKEN} "])
def test_authenticate_ignores_the_case_of_the_scheme_and_spaces_around_the_token(
    value: str,
) -> None:
    principal = BearerToken(TOKEN).authenticate(value.encode("latin-1"))
    assert principal == Principal(frozenset({"read", "write", "admin"}))


async def test_request_without_a_token_gets_401(api: Api) -> None:
    answer = await api.raw(b"GET /messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_request_with_a_token_of_arbitrary_bytes_gets_401(api: Api) -> None:
    head = b"GET /messages HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await api.raw(head + b"Authorization: Bearer \xff\xfe\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("token", ["olá", "à", "秘密", "a b"])
async def test_token_beyond_ascii_is_compared_as_utf_8(live_store: Store, token: str) -> None:
    scheduler = Scheduler()
    app = application(live_store, scheduler, token)
    async with (
        opened(app, scheduler, token) as api,
        api.client.get("/messages") as response,
    ):
        assert response.status == 200


async def test_create_without_a_token_stores_nothing(api: Api, live_store: Store) -> None:
    headers = {"Authorization": "Bearer wrong"}
    body = {"id": "a", "webhookUrl": URL}
    async with api.client.post("/messages", headers=headers, json=body) as response:
        await problem(response, 401, "unauthenticated")
    assert await live_store.messages.count() == 0


async def test_delete_without_a_token_deletes_nothing(api: Api, live_store: Store) -> None:
    async with api.client.post("/messages", json={"id": "a", "webhookUrl": URL, "delay": 60}):
        pass
    async with api.client.delete("/messages/a", headers={"Authorization": ""}) as response:
        await problem(response, 401, "unauthenticated")
    assert await live_store.messages.count() == 1


@pytest.mark.parametrize(
    "path", ["/health", "/health/live", "/health/ready", "/docs", "/openapi.json"]
)
async def test_path_without_a_scope_needs_no_token(api: Api, path: str) -> None:
    async with api.client.get(path, headers={"Authorization": "Bearer wrong"}) as response:
        assert response.status == 200
