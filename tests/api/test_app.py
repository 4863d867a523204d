"""app.py: unexpected errors, requests that are cut off, the lifespan."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from scheduler_api.api.app import create_app
from scheduler_api.store.store import Store
from tests.api.conftest import TOKEN, Api
from tests.support.problems import problem
from tests.support.raw_client import responses
from tests.support.waiting import wait_until

AUTHORIZED = b"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % TOKEN.encode()


async def broken(_: Request) -> Response:
    raise RuntimeError("a secret")


async def broken_off(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("a secret")

    return StreamingResponse(chunks())


@pytest.fixture
def fragile(api: Api) -> Api:
    """The API with two handlers that fail."""
    api.app.router.routes += [Route("/broken", broken), Route("/broken-off", broken_off)]
    return api


async def test_unexpected_error_is_a_500_whose_request_id_is_in_the_log(fragile: Api) -> None:
    with capture_logs() as logs:
        async with fragile.client.get("/broken") as response:
            found = await problem(response, 500, "internal_error")
    assert "secret" not in str(found)
    assert found["requestId"] in found["detail"]
    (entry,) = logs
    assert (entry["event"], entry["path"]) == ("request_failed", "/broken")
    assert (entry["request_id"], entry["log_level"]) == (found["requestId"], "error")
    assert entry["exc_info"]


async def test_request_after_a_500_is_answered(fragile: Api) -> None:
    with capture_logs():
        async with fragile.client.get("/broken"):
            pass
    async with fragile.client.get("/messages") as response:
        assert response.status == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_response_that_breaks_off_is_not_ended_as_if_it_were_complete(fragile: Api) -> None:
    with capture_logs() as logs:
        head = b"GET /broken-off HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = await fragile.raw(head)
    assert b"begun" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert "request_failed" in [entry["event"] for entry in logs]


async def hanging(_: Request) -> Response:
    await asyncio.Event().wait()
    raise AssertionError


async def hanging_stream(_: Request) -> Response:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"begun"
        await asyncio.Event().wait()

    return StreamingResponse(chunks())


async def cut_off(api: Api, path: str) -> bytes:
    """The bytes that answer a request which the shutdown of the server cuts off."""
    api.app.router.routes += [Route("/hanging", hanging), Route("/stream", hanging_stream)]
    reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    tasks = api.server.server_state.tasks
    await wait_until("a request", lambda: bool(tasks))
    begun = await reader.readuntil(b"begun\r\n") if path == "/stream" else b""
    await api.server.shutdown()
    rest = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return begun + rest


async def test_request_cut_off_by_the_shutdown_gets_503(api: Api) -> None:
    api.server.config.timeout_graceful_shutdown = 0
    (response,) = responses(await cut_off(api, "/hanging"))
    assert response.problem["code"] == "shutting_down"
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert response.headers["connection"] == "close"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_response_cut_off_by_the_shutdown_is_not_ended(api: Api) -> None:
    api.server.config.timeout_graceful_shutdown = 0
    answer = await cut_off(api, "/stream")
    assert answer.endswith(b"begun\r\n")


async def test_request_of_a_client_that_disconnects_stores_nothing_and_logs_no_error(
    api: Api, live_store: Store
) -> None:
    with capture_logs() as logs:
        _, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(AUTHORIZED + b'Content-Length: 100\r\n\r\n{"webhookUrl":')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        # The server answers this after it has seen the end of the first connection.
        async with api.client.get("/messages") as response:
            assert (await response.json())["total"] == 0
    assert logs == []
    assert await live_store.messages.count() == 0


async def test_lifespan_is_run_by_the_function_that_is_passed_in() -> None:
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
