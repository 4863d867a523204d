"""ROOT_PATH: behind a proxy with a path prefix, which strips it or passes it on.

Every URL in a response has the prefix.
"""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from scheduler_api.server import run
from scheduler_api.server.protocol import HttpProtocol
from scheduler_api.settings import Settings, SettingsError, load
from scheduler_api.store.store import Store
from tests.api.conftest import TOKEN, Scheduler, application, serving
from tests.support.factories import URL

PREFIX = "/a/scheduler"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(params=["ours", "configured", "unconfigured"])
async def client(
    live_store: Store, request: pytest.FixtureRequest
) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of our server, or of another server that has or lacks the root path."""
    ours, knows = request.param == "ours", request.param != "unconfigured"
    options: dict[str, Any] = {} if ours else {"foreign": True, "root_path": PREFIX}
    app = application(live_store, Scheduler(), **options)
    async with (
        serving(app, HttpProtocol if ours else "auto", root_path=PREFIX if knows else "") as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=AUTHORIZED) as session,
    ):
        yield session


async def answer(client: aiohttp.ClientSession, method: str, path: str, **more: Any) -> int:
    async with client.request(method, path, allow_redirects=False, **more) as response:
        return response.status


@pytest.mark.parametrize("passed_on", ["", PREFIX])
async def test_root_path_may_be_in_the_request_or_stripped_by_the_proxy(
    client: aiohttp.ClientSession, passed_on: str
) -> None:
    message = {"id": "m", "webhookUrl": URL, "delay": 60}
    for slash in ("", "/"):
        path = f"{passed_on}/messages{slash}"
        async with client.post(path, json=message) as response:
            assert response.status == 201
            assert response.headers["Location"] == f"{PREFIX}/messages/m"
        assert await answer(client, "GET", path) == 200
        assert await answer(client, "OPTIONS", path) == 204
        assert await answer(client, "PUT", path) == 405
        assert await answer(client, "DELETE", f"{passed_on}/messages/m{slash}") == 200
        assert await answer(client, "GET", f"{passed_on}/health/live{slash}") == 200
        assert await answer(client, "GET", f"{passed_on}{slash}") == 404
        assert await answer(client, "GET", f"{passed_on}/nope{slash}") == 404
    assert await answer(client, "GET", f"{passed_on}/docs") == 200
    assert await answer(client, "GET", f"{passed_on}/docs/docs.js") == 200


async def test_root_path_twice_or_another_prefix_is_404(client: aiohttp.ClientSession) -> None:
    for path in (f"{PREFIX}{PREFIX}/messages", "/a/messages", f"{PREFIX}s/messages"):
        assert await answer(client, "GET", path) == 404


async def test_openapi_servers_have_the_root_path(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        assert (await response.json())["servers"] == [{"url": PREFIX}]


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", ""),
        ("/", ""),
        ("//", ""),
        ("/scheduler", "/scheduler"),
        ("/a/b/", "/a/b"),
        ("/v1.0~x", "/v1.0~x"),
    ],
)
def test_root_path_setting_is_a_path(text: str, path: str) -> None:
    settings = load({"ROOT_PATH": text}, {}, None)
    assert settings.root_path == path
    assert run._config(settings, None).root_path == path


@pytest.mark.parametrize("text", ["scheduler", "/a//b", "https://h/a", "/a b", "/a?b", "/%41"])
def test_root_path_setting_that_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"ROOT_PATH is .*: must be a path"):
        load({"ROOT_PATH": text}, {}, None)


def test_keep_alive_is_longer_than_that_of_common_proxies() -> None:
    """nginx and Amazon's load balancers close theirs after 60 s."""
    assert run._config(Settings(), None).timeout_keep_alive == 75
