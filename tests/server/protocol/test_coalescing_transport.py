"""The head and the body of a response are one write; nothing is held longer than one iteration.

Reading pauses while pipelined requests wait, however they are cut into packets.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from scheduler_api.server.protocol import HttpProtocol
from scheduler_api.server.protocol.http_protocol import MAX_HEAD
from tests.support.waiting import wait_until

END = b""  # marks the end of the connection, among its writes


class Connection(asyncio.Transport):
    """What a client would receive, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.reading = True
        self.read_meanwhile: list[bool] = []  # at each write, whether the connection was reading
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))
        self.read_meanwhile.append(self.reading)

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.writes.append(END)

    def close(self) -> None:
        self.writes.append(END)
        self.closed = True

    def resume_reading(self) -> None:
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False


def connect(app: ASGIApp) -> tuple[Connection, Callable[[bytes], None]]:
    """A connection to an application, and a function that sends on it."""
    config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off")
    protocol, connection = HttpProtocol(config, ServerState(), {}), Connection()
    protocol.connection_made(connection)
    return connection, protocol.data_received


def request(method: str = "GET", headers: str = "") -> bytes:
    return f"{method} / HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode()


async def until_ended(connection: Connection, end: bytes) -> list[bytes]:
    """The writes up to the one with this end."""
    await wait_until(
        f"{end!r}", lambda: bool(connection.writes) and connection.writes[-1].endswith(end)
    )
    return connection.writes


async def test_write_joins_head_and_body_of_a_response() -> None:
    connection, send = connect(Response("whole"))
    send(request())
    (answer,) = await until_ended(connection, b"\r\n\r\nwhole")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


async def test_write_joins_head_and_body_of_each_response_on_a_connection() -> None:
    connection, send = connect(Response("whole"))
    send(request() + request())
    await wait_until("both responses", lambda: len(connection.writes) == 2)
    assert all(answer.endswith(b"\r\n\r\nwhole") for answer in connection.writes)


async def test_write_sends_a_head_without_a_body() -> None:
    connection, send = connect(Response("whole"))
    send(request("HEAD"))
    (answer,) = await until_ended(connection, b"\r\n\r\n")
    assert b"content-length: 5\r\n" in answer


async def test_write_sends_a_part_of_a_body_without_waiting_for_the_next() -> None:
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


async def test_write_sends_100_continue_at_once() -> None:
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
async def test_close_sends_the_last_response_before_the_end(method: str, last: bytes) -> None:
    connection, send = connect(Response("whole"))
    send(request(method, "Connection: close\r\n"))
    await wait_until("the end of the connection", lambda: connection.closed)
    answer, end = connection.writes
    assert (answer.endswith(last), end) == (True, END)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_write_sends_nothing_to_a_closed_connection(method: str) -> None:
    ended = asyncio.Event()

    async def parts() -> AsyncIterator[bytes]:
        connection.closed = True
        asyncio.get_running_loop().call_soon(ended.set)
        yield b"part"

    connection, send = connect(StreamingResponse(parts()))
    send(request(method))
    await ended.wait()
    assert connection.writes == []


async def read_body(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(await Request(scope, receive).body())(scope, receive, send)


@pytest.mark.parametrize("app", [Response("whole"), read_body])
async def test_reading_pauses_while_pipelined_requests_wait(
    app: ASGIApp,
) -> None:
    connection, send = connect(app)
    send((request("POST", "Content-Length: 1\r\n") + b"x") * 5)
    await wait_until("all responses", lambda: len(connection.writes) == 5)
    assert connection.read_meanwhile[:3] == [False] * 3
    assert connection.reading


@pytest.mark.parametrize(("size", "status"), [(MAX_HEAD, b"200"), (MAX_HEAD + 1, b"431")])
async def test_head_limit_holds_for_a_head_that_begins_in_the_packet_of_another_request(
    size: int, status: bytes
) -> None:
    connection, send = connect(Response("whole"))
    head = request(headers="X: \r\n").replace(b"X: ", b"X: " + b"a" * (size - len(request()) - 5))
    assert len(head) == size
    send(request() + head[:-3])
    await until_ended(connection, b"whole")
    send(head[-3:])
    await wait_until("the second response", lambda: len(connection.writes) > 1)
    assert connection.writes[1].split()[1] == status


async def test_close_with_waiting_requests_reads_until_the_client_closes() -> None:
    connection, send = connect(Response("whole", headers={"Connection": "close"}))
    send(request() * 5 + b"GET")
    answer, end = await until_ended(connection, END)
    assert (answer.endswith(b"whole"), end, connection.reading) == (True, END, True)
