"""An answer's head and body are one write, and nothing is held back for longer than a turn."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from scheduler_api.protocol import HttpProtocol
from tests.support.waiting import wait_until

END = b""  # of the connection, among its writes


class Connection(asyncio.Transport):
    """What a caller would get, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.writes.append(END)
        self.closed = True

    def resume_reading(self) -> None:
        """It always reads."""

    def pause_reading(self) -> None:
        """It always reads."""


def connect(app: ASGIApp) -> tuple[Connection, Callable[[bytes], None]]:
    """A connection to an application, and how to send on it."""
    config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off")
    protocol, connection = HttpProtocol(config, ServerState(), {}), Connection()
    protocol.connection_made(connection)
    return connection, protocol.data_received


def request(method: str = "GET", headers: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()


async def until_ended(connection: Connection, end: bytes) -> list[bytes]:
    """The writes up to the one that ends so."""
    await wait_until(
        f"{end!r}", lambda: bool(connection.writes) and connection.writes[-1].endswith(end)
    )
    return connection.writes


async def test_head_and_body_are_one_write() -> None:
    connection, send = connect(Response("whole"))
    send(request())
    (answer,) = await until_ended(connection, b"\r\n\r\nwhole")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_each_answer_on_a_connection_is_one_write() -> None:
    connection, send = connect(Response("whole"))
    send(request() + request())
    await wait_until("both", lambda: len(connection.writes) == 2)
    assert all(answer.endswith(b"\r\n\r\nwhole") for answer in connection.writes)


async def test_a_head_without_a_body_is_sent() -> None:
    connection, send = connect(Response("whole"))
    send(request("HEAD"))
    (answer,) = await until_ended(connection, b"\r\n\r\n")
    assert b"content-length: 5\r\n" in answer


async def test_a_part_of_a_body_does_not_wait_for_the_next() -> None:
    going_on = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        for part in (b"a", b"b"):
            yield part
        await going_on.wait()
        yield b"c"

    connection, send = connect(StreamingResponse(parts()))
    send(request())
    await until_ended(connection, b"b\r\n")
    assert not going_on.is_set()
    going_on.set()
    await until_ended(connection, b"c\r\n0\r\n\r\n")


async def test_a_caller_that_asks_is_told_at_once_to_go_on() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await Response(body)(scope, receive, send)

    connection, send = connect(app)
    send(request("POST", "Content-Length: 4\r\nExpect: 100-continue\r\n"))
    await until_ended(connection, b"100 Continue\r\n\r\n")
    send(b"body")
    await until_ended(connection, b"\r\n\r\nbody")
    assert len(connection.writes) == 2


@pytest.mark.parametrize(("method", "last"), [("GET", b"\r\n\r\nwhole"), ("HEAD", b"\r\n\r\n")])
async def test_the_last_answer_is_sent_before_the_end(method: str, last: bytes) -> None:
    connection, send = connect(Response("whole"))
    send(request(method, "Connection: close\r\n"))
    await wait_until("the end", lambda: connection.closed)
    answer, end = connection.writes
    assert (answer.endswith(last), end) == (True, END)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_nothing_is_written_to_a_caller_that_has_gone(method: str) -> None:
    ended = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        connection.closed = True
        asyncio.get_running_loop().call_soon(ended.set)
        yield b"part"

    connection, send = connect(StreamingResponse(parts()))
    send(request(method))
    await ended.wait()
    assert connection.writes == []
