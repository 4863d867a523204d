"""routing.py: paths, final slashes, methods, unknown query fields."""

import re

import pytest
from yarl import URL as EncodedURL  # noqa: N811  URL is a str here

from scheduler_api.api.app import RESOURCES
from tests.api.conftest import Api
from tests.support.factories import URL
from tests.support.problems import problem

EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", ["/", "/nope", "/messages/a/b", "/messages/a%2Fb", "/health/x"])
async def test_unknown_path_is_a_404_problem(api: Api, path: str) -> None:
    async with api.client.get(path) as response:
        await problem(response, 404, "not_found")


@pytest.mark.parametrize("path", [*RESOURCES, "/openapi.json", "/docs/docs.js"])
async def test_final_slash_means_the_same_as_none(api: Api, path: str) -> None:
    url = re.sub("{.*}", "x", path)
    for method in EVERY_METHOD:
        found = []
        for each in (url, f"{url}/"):
            async with api.client.request(method, each, allow_redirects=False) as response:
                found.append(
                    (response.status, response.content_type, response.headers.get("Allow"))
                )
        assert found[0] == found[1], method


async def test_message_is_created_and_deleted_with_a_final_slash(api: Api) -> None:
    message = {"id": "a", "webhookUrl": URL, "delay": 60}
    async with api.client.post("/messages/", json=message) as response:
        assert (response.status, response.headers["Location"]) == (201, "/messages/a")
    async with api.client.post("/messages/batch/", json={"messages": [{}]}) as response:
        assert response.status == 200
    async with api.client.delete("/messages/a/") as response:
        assert response.status == 200


async def test_encoded_slash_and_second_slash_belong_to_the_id(api: Api) -> None:
    async with api.client.post("/messages", json={"id": "a", "webhookUrl": URL, "delay": 60}):
        pass
    for path in ("/messages/a%2F", "/messages/a//", "/messages//"):
        async with api.client.get(EncodedURL(path, encoded=True)) as response:
            assert response.status == 404, path


async def test_docs_with_a_final_slash_redirects_to_the_path_without(api: Api) -> None:
    """The links of the page are relative. No response repeats the Host of the request."""
    answer = await api.raw(
        b"GET /docs/ HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    )
    assert answer.startswith(b"HTTP/1.1 308 ")
    assert b"\r\nlocation: ../docs\r\n" in answer
    assert b"evil" not in answer
    async with api.client.get("/docs/") as response:
        assert (response.status, str(response.url.path)) == (200, "/docs")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/messages"),
        ("POST", "/messages/batch"),
        ("GET", "/messages"),
        ("GET", "/messages/a"),
        ("DELETE", "/messages/a"),
        ("GET", "/destinations"),
        ("GET", "/destinations/a"),
        ("PUT", "/destinations/a"),
        ("DELETE", "/destinations/a"),
        ("GET", "/docs"),
        ("GET", "/docs/docs.js"),
        ("GET", "/openapi.json"),
    ],
)
@pytest.mark.parametrize("query", ["x=1", "limt=", "cursor_=a&x", "%20=%FF"])
async def test_unknown_query_field_is_refused(api: Api, method: str, path: str, query: str) -> None:
    url = EncodedURL(f"{path}?{query}", encoded=True)
    async with api.client.request(method, url, data=b"{}") as response:
        (error,) = (await problem(response, 422, "invalid_request"))["errors"]
    assert error["path"].startswith("?")


async def test_health_ignores_a_query(api: Api) -> None:
    for path in ("/health", "/health/live", "/health/ready"):
        async with api.client.get(f"{path}?probe=1") as response:
            assert response.status == 200


@pytest.mark.parametrize("path", [*RESOURCES, "/docs", "/docs/docs.js", "/openapi.json"])
async def test_options_answers_204_with_allow_and_needs_no_token(api: Api, path: str) -> None:
    url = re.sub("{.*}", "x", path)
    head = f"OPTIONS {url} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    answer = await api.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 204 ")
    async with api.client.request("TRACE", url) as refused:
        assert f"\r\nallow: {refused.headers['Allow']}\r\n".encode() in answer
        assert "OPTIONS" in refused.headers["Allow"]


async def test_options_of_an_unknown_path_is_404_and_of_the_server_204(api: Api) -> None:
    async with api.client.options("/nope") as response:
        await problem(response, 404, "not_found")
    answer = await api.raw(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("path", RESOURCES)
async def test_allow_names_exactly_the_supported_methods(api: Api, path: str) -> None:
    url = path.replace("{id}", "x")
    fitting = [one for one in RESOURCES if re.fullmatch(one.replace("{id}", "[^/]+"), url)]
    methods = {method for one in fitting for method in RESOURCES[one]}
    taken = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    for method in EVERY_METHOD:
        async with api.client.request(method, url) as response:
            assert (response.status != 405) == (method in taken), method
            if response.status == 405:
                await problem(response, 405, "method_not_allowed")
                allowed = {name.strip() for name in response.headers["Allow"].split(",")}
                assert allowed == taken


@pytest.mark.parametrize(
    "path",
    [
        *(path for path in RESOURCES if "GET" in RESOURCES[path]),
        *("/openapi.json", "/docs", "/docs/docs.js", "/docs/nope"),
    ],
)
async def test_head_answers_like_get_without_a_body(api: Api, path: str) -> None:
    path = re.sub("{.*}", "x", path)
    async with api.client.get(path) as response:
        get = response.status, response.content_type, response.content_length
    async with api.client.head(path) as response:
        head = response.status, response.content_type, response.content_length
        assert await response.read() == b""
    assert head[:2] == get[:2]
    assert head[2]
