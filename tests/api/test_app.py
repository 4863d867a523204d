"""The application as a whole: addresses, methods, framing, and what nobody expected."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from scheduler_api.api.app import RESOURCES, create_app
from scheduler_api.store.store import Store
from tests.api.conftest import TOKEN, Api, raw, serving
from tests.support.problems import problem

AUTHORIZED = b"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()
EVERY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@pytest.mark.parametrize("path", ["/", "/nope", "/messages/a/b", "/messages/a%2Fb", "/health/x"])
async def test_an_unknown_address_is_a_problem(api: Api, path: str) -> None:
    async with api.client.get(path) as response:
        await problem(response, 404, "not_found")


async def test_a_trailing_slash_leads_to_the_same_address(api: Api) -> None:
    async with api.client.get("/messages/", allow_redirects=False) as response:
        assert response.status == 307
        assert response.headers["Location"].endswith("/messages")


@pytest.mark.parametrize("path", RESOURCES)
async def test_allow_names_exactly_the_methods_that_are_taken(api: Api, path: str) -> None:
    url = path.replace("{id}", "x")
    fitting = [one for one in RESOURCES if re.fullmatch(one.replace("{id}", "[^/]+"), url)]
    methods = {method for one in fitting for method in RESOURCES[one]}
    taken = methods | {"HEAD"} if "GET" in methods else methods
    for method in EVERY_METHOD:
        async with api.client.request(method, url) as response:
            assert (response.status != 405) == (method in taken), method
            if response.status == 405:
                await problem(response, 405, "method_not_allowed")
                allowed = {name.strip() for name in response.headers["Allow"].split(",")}
                assert allowed == taken


@pytest.mark.parametrize("path", ["/messages", "/health", "/openapi.json", "/docs"])
async def test_head_answers_like_get_without_the_body(api: Api, path: str) -> None:
    async with api.client.get(path) as response:
        get = response.status, response.content_type, response.content_length
    async with api.client.head(path) as response:
        head = response.status, response.content_type, response.content_length
        assert await response.read() == b""
    assert head[:2] == get[:2]
    assert head[2]


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret of ours")


async def broken_off(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("a secret of ours")

    return StreamingResponse(chunks())


@pytest.fixture
def fragile(api: Api) -> Api:
    """The API with two handlers that fail."""
    api.app.router.routes += [Route("/broken", broken), Route("/broken-off", broken_off)]
    return api


async def test_a_fault_of_ours_is_a_500_whose_request_id_is_in_the_log(fragile: Api) -> None:
    with capture_logs() as logs:
        async with fragile.client.get("/broken") as response:
            found = await problem(response, 500, "internal_error")
    assert "secret" not in str(found)
    assert found["requestId"] in found["detail"]
    (entry,) = logs
    assert (entry["event"], entry["path"]) == ("request_failed", "/broken")
    assert (entry["request_id"], entry["log_level"]) == (found["requestId"], "error")
    assert entry["exc_info"]


async def test_after_a_500_the_next_request_is_answered(fragile: Api) -> None:
    with capture_logs():
        async with fragile.client.get("/broken"):
            pass
    async with fragile.client.get("/messages") as response:
        assert response.status == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_answer_that_breaks_off_is_not_ended_as_if_it_were_whole(fragile: Api) -> None:
    with capture_logs() as logs:
        head = b"GET /broken-off HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await fragile.raw(head)
    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert "request_failed" in [entry["event"] for entry in logs]


async def test_length_and_chunks_together_are_refused_by_the_server(
    api: Api, live_store: Store
) -> None:
    framing = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert (await api.raw(AUTHORIZED + framing)).startswith(b"HTTP/1.1 400 ")
    assert await live_store.messages.count() == 0


async def test_length_and_chunks_together_are_refused_by_us_where_the_server_lets_them_pass(
    api: Api, live_store: Store
) -> None:
    framing = b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    async with serving(api.app, "h11") as port:
        answer = await raw(port, AUTHORIZED + framing + b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b'"code":"malformed_request"' in answer
    assert await live_store.messages.count() == 0


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 99999999999999999999999999\r\n\r\n",
        b"Content-Length: 0x10\r\n\r\n",
        b"X-A: b\x00c\r\n\r\n",
        b"X A: b\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_is_a_400(api: Api, live_store: Store, rest: bytes) -> None:
    assert (await api.raw(AUTHORIZED + rest)).startswith(b"HTTP/1.1 400 ")
    assert await live_store.messages.count() == 0


async def test_a_caller_that_leaves_in_the_middle_stores_nothing_and_is_no_error(
    api: Api, live_store: Store
) -> None:
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(AUTHORIZED + b'Content-Length: 100\r\n\r\n{"webhookUrl":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        # Answered after the server has seen the end of the first connection.
        async with api.client.get("/messages") as response:
            assert (await response.json())["total"] == 0
    assert logs == []
    assert await live_store.messages.count() == 0


async def test_the_lifespan_is_left_to_the_one_that_is_given() -> None:
    app, sent = create_app(), []
    words = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, str]:
        return next(words)

    async def send(message: object) -> None:
        sent.append(message)

    await app({"type": "lifespan", "app": app, "state": {}}, receive, send)
    assert [message["type"] for message in sent] == [  # type: ignore[index]
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]
