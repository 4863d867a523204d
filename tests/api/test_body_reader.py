"""body_reader.py: bodies that wait for memory, are refused, and return their memory."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from scheduler_api.api import body_reader
from scheduler_api.api.body_reader import MAX_UNCOUNTED_BODY
from scheduler_api.byte_budget import ByteBudget
from tests.api.conftest import BODIES, MAX_BODY, TOKEN, Api
from tests.support.factories import URL
from tests.support.problems import problem
from tests.support.waiting import wait_until

LARGE = MAX_BODY // 2


def budget(api: Api) -> ByteBudget:
    found: ByteBudget = api.app.state.context.bodies
    return found


def body(size: int) -> bytes:
    """The body of a create with `size` bytes."""
    empty = json.dumps({"webhookUrl": URL, "delay": "1h", "payload": ""})
    return json.dumps(
        {"webhookUrl": URL, "delay": "1h", "payload": "x" * (size - len(empty))}
    ).encode()


def head(length: str) -> bytes:
    return (
        f"POST /messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\r\n{length}\r\n\r\n"
    ).encode()


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """`data` in pieces, so that the client sends it in chunks."""
    for start in range(0, len(data), MAX_UNCOUNTED_BODY):
        yield data[start : start + MAX_UNCOUNTED_BODY]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [MAX_UNCOUNTED_BODY, MAX_UNCOUNTED_BODY + 1, LARGE, MAX_BODY])
async def test_read_body_returns_its_memory_to_the_budget(
    api: Api, size: int, *, chunked: bool
) -> None:
    data = pieces(body(size)) if chunked else body(size)
    async with api.client.post("/messages", data=data) as response:
        assert response.status == 201
    assert budget(api).held == 0


@pytest.mark.parametrize("wrong", [b"{", b'{"webhookUrl": 1}', b"\xff"])
async def test_read_body_returns_the_memory_of_a_refused_body(api: Api, wrong: bytes) -> None:
    async with api.client.post("/messages", data=wrong + b" " * LARGE) as response:
        assert response.status in (400, 422)
    assert budget(api).held == 0


async def test_read_body_reserves_memory_by_the_content_length(api: Api) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", api.port)
    writer.write(head(f"Content-Length: {LARGE}") + b"{")
    await wait_until("the memory is held", lambda: budget(api).held == LARGE)
    writer.close()
    await wait_until("it is given back", lambda: budget(api).held == 0)


async def test_read_body_waits_for_memory_without_reading(api: Api) -> None:
    await budget(api).acquire(BODIES)
    posting = asyncio.create_task(api.client.post("/messages", data=body(LARGE)).__aenter__())
    await wait_until("it waits", lambda: bool(budget(api)._waiting))
    async with api.client.post("/messages", data=body(MAX_UNCOUNTED_BODY)) as response:
        assert response.status == 201, "a small body needs no memory"
    budget(api).release(BODIES)
    response = await posting
    assert response.status == 201
    response.close()


async def test_read_body_refuses_after_the_timeout_and_nothing_is_stored(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_reader, "MEMORY_TIMEOUT", 0.05)
    await budget(api).acquire(BODIES)
    for path in ("/messages", "/messages/batch"):
        async with api.client.post(path, data=body(LARGE)) as response:
            await problem(response, 503, "memory_full")
            assert response.headers["Retry-After"] == "1"
            assert response.headers["Connection"] == "close"
    async with api.client.put("/destinations/host.example", data=body(LARGE)) as response:
        await problem(response, 503, "memory_full")
    async with api.client.get("/messages") as response:
        assert (await response.json())["total"] == 0
    assert budget(api).held == BODIES


async def test_read_body_refuses_a_body_of_unknown_size_at_once_without_memory(api: Api) -> None:
    await budget(api).acquire(BODIES - MAX_UNCOUNTED_BODY)
    async with api.client.post("/messages", data=pieces(body(LARGE))) as response:
        await problem(response, 503, "memory_full")
    assert budget(api).held == BODIES - MAX_UNCOUNTED_BODY


async def test_read_body_lets_the_only_body_exceed_the_budget(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget(api), "limit", 2 * MAX_UNCOUNTED_BODY)
    for data in (body(MAX_BODY), pieces(body(MAX_BODY))):
        async with api.client.post("/messages", data=data) as response:
            assert response.status == 201
    assert budget(api).held == 0


async def test_read_body_keeps_many_large_bodies_within_the_budget(api: Api) -> None:
    max_held = 0

    async def post() -> int:
        nonlocal max_held
        async with api.client.post("/messages", data=body(MAX_BODY)) as response:
            max_held = max(max_held, budget(api).held)
            return response.status

    assert await asyncio.gather(*(post() for _ in range(20))) == [201] * 20
    assert max_held <= BODIES
    assert budget(api).held == 0
