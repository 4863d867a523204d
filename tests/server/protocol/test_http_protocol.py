"""A connection's ends: closes that can be read, requests that never arrive, too many callers."""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from typing import Any, cast

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from structlog.testing import capture_logs

from scheduler_api.api.app import create_app
from scheduler_api.server.protocol import HttpProtocol, connections, http_protocol
from tests.api.conftest import MAX_BODY, TOKEN, Api, served
from tests.support.raw_client import Response, responses
from tests.support.waiting import wait_until

MIB = 1024**2
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
HALF_HEAD = GET[:-4]
HALF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"
CHUNK = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
LIMIT = 3  # connections
SECOND = 0.002  # between two looks, where the real clock is to do it


class Work:
    """What three paths of the application do: at / it answers the size of the body."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.asked = 0

    async def size(self, request: Request) -> PlainTextResponse:
        """Of the body."""
        self.asked += 1
        return PlainTextResponse(str(len(await request.body())))

    async def held(self, request: Request) -> PlainTextResponse:
        """The same, not before it is released."""
        self.asked += 1
        await self.released.wait()
        return PlainTextResponse(str(len(await request.body())))

    async def early(self, _: Request) -> PlainTextResponse:
        """Without a look at the body."""
        return PlainTextResponse("early")

    async def large(self, _: Request) -> PlainTextResponse:
        """More than a connection's buffers hold."""
        return PlainTextResponse(b"a" * 32 * MIB)

    async def stream(self, request: Request) -> StreamingResponse:
        """Begun at once; ended when it is released, or when the whole body has been read."""

        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            if "read" in request.query_params:
                await request.body()
            await self.released.wait()
            yield b"ended"

        return StreamingResponse(parts())

    def application(self) -> Starlette:
        """The product's, with these paths."""
        app = create_app()
        paths = {"/": self.size, "/held": self.held, "/early": self.early, "/stream": self.stream}
        paths["/large"] = self.large
        for path, work in paths.items():
            app.router.routes.append(Route(path, work, methods=["POST", "GET"]))
        return app


class Client:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Response:
        """Send, and wait for one response."""
        self.writer.write(request)
        return await self.response()

    async def response(self) -> Response:
        """The next one."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return responses(head + await self.reader.readexactly(size))[0]

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 10)


class Served:
    """A server of that application, and its clients."""

    def __init__(self, server: uvicorn.Server, port: int, work: Work) -> None:
        self.port = port
        self.work = work
        self.server = server
        self._clients: list[Client] = []

    @property
    def open(self) -> set[HttpProtocol]:
        """Connections, as the server sees them."""
        return cast("set[HttpProtocol]", self.server.server_state.connections)

    async def connect(self, sent: bytes = b"") -> Client:
        """A client whose first bytes the server has read."""
        before = set(self.open)
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        await wait_until("the connection", lambda: bool(self.open - before) or not before)
        if sent:
            (one,) = self.open - before
            client.writer.write(sent)
            await wait_until("the bytes", lambda: one.received >= len(sent) or one not in self.open)
        return client

    def pass_seconds(self, count: int) -> None:
        """Let them pass at once."""
        for _ in range(count):
            for one in [one for one in self.open if one.unfinished]:
                one.tick()

    async def closed(self, count: int = 0) -> None:
        """Wait until only so many connections are open."""
        await wait_until(f"{count} connections", lambda: len(self.open) == count)

    def close_clients(self) -> None:
        """All of them."""
        for client in self._clients:
            client.writer.close()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    """With these options of uvicorn's."""
    work = Work()
    async with served(work.application(), **options) as (server, port):
        one = Served(server, port, work)
        try:
            yield one
        finally:
            work.released.set()
            one.close_clients()


@pytest.fixture
async def service() -> AsyncIterator[Served]:
    """Without a limit."""
    async with serving() as one:
        yield one


@pytest.fixture
async def small() -> AsyncIterator[Served]:
    """With a limit of three connections."""
    async with serving(limit_concurrency=LIMIT) as one:
        yield one


# --- Closes that can be read ---


def post_then_read(port: int, size: int, *, chunked: bool) -> tuple[int, Any]:
    """As http.client does: everything is sent before anything is read."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        part = bytes(64 * 1024)
        body: Any = bytes(size)
        if chunked:
            body = (part for _ in range(size // len(part)))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        client.request("POST", "/messages", body, headers, encode_chunked=chunked)
        answer = client.getresponse()
        return answer.status, json.loads(answer.read())


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [2 * MIB, 8 * MIB, 32 * MIB])
async def test_413_is_read_by_a_client_that_sends_before_it_reads(
    api: Api, size: int, chunked: bool
) -> None:
    status, found = await asyncio.to_thread(post_then_read, api.port, size, chunked=chunked)
    assert (status, found["code"]) == (413, "payload_too_large")


async def too_large(api: Api) -> Client:
    """A client that has been refused in the middle of its body."""
    client = Client(*await asyncio.open_connection("127.0.0.1", api.port))
    head = f"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    response = await client.ask(f"{head}Content-Length: {2 * MAX_BODY}\r\n\r\n".encode() + b"a" * 9)
    assert response.status == 413
    assert response.headers["connection"] == "close"
    return client


def of(api: Api) -> set[HttpProtocol]:
    """The server's connections."""
    return cast("set[HttpProtocol]", api.server.server_state.connections)


async def test_after_a_413_the_end_comes_at_once_and_the_rest_is_discarded(api: Api) -> None:
    client = await too_large(api)
    assert await client.rest() == b""
    client.writer.write(b"a" * MAX_BODY)
    await client.writer.drain()
    assert len(of(api)) == 1
    client.writer.close()
    await wait_until("no connection", lambda: not of(api))


async def test_after_a_413_no_more_than_a_limit_is_read(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_DISCARDED", MAX_BODY)
    client = await too_large(api)
    client.writer.write(b"a" * (MAX_BODY + 1))
    await wait_until("no connection", lambda: not of(api))
    client.writer.close()


async def test_after_a_413_the_client_has_half_a_minute_to_close(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await too_large(api)
    await wait_until("no connection", lambda: not of(api))
    client.writer.close()


async def test_shutdown_does_not_wait_for_clients_that_have_their_response(api: Api) -> None:
    client = await too_large(api)
    (one,) = of(api)
    one.shutdown()
    await wait_until("no connection", lambda: not of(api))
    client.writer.close()


@pytest.mark.parametrize("path", [b"/stream", b"/stream?read"])
async def test_a_bad_chunk_after_the_response_has_begun_cuts_it_off(
    service: Served, path: bytes
) -> None:
    client = await service.connect(CHUNK.replace(b"/", path, 1))
    await client.reader.readuntil(b"begun\r\n")
    with capture_logs() as logs:
        client.writer.write(b"no chunk\r\n")
        assert await client.rest() == b""
        await wait_until("no request", lambda: not service.server.server_state.tasks)
    assert logs == []


# --- Requests that never arrive ---

UNFINISHED = {
    "half a line": b"GET / HT",
    "half a head": HALF_HEAD,
    "a head without its last byte": GET[:-1],
    "half a body": HALF_BODY,
    "no body": HALF_BODY[:-4],
    "a chunk without a next": CHUNK,
    "half a chunk": CHUNK[:-4],
    "half a trailer": CHUNK + b"0\r\nX-A: ",
}


@pytest.mark.parametrize("sent", UNFINISHED.values(), ids=UNFINISHED)
async def test_a_request_that_does_not_arrive_within_30_seconds_is_408(
    service: Served, sent: bytes
) -> None:
    client = await service.connect(sent)
    service.pass_seconds(29)
    assert not any(one.discarding for one in service.open)
    service.pass_seconds(2)  # the first saw what had arrived before
    response = await client.response()
    assert response.problem["code"] == "request_timeout"
    assert response.headers["connection"] == "close"
    assert await client.rest() == b""
    client.writer.close()
    await service.closed()


async def test_bytes_that_drip_do_not_stop_the_clock(service: Served) -> None:
    client = await service.connect(HALF_HEAD)
    for _ in range(http_protocol.MAX_SLOW_TICKS):
        client.writer.write(b"a")
        await wait_until("the byte", lambda: all(one.received for one in service.open))
        service.pass_seconds(1)
    assert (await client.response()).status == 408


async def test_a_body_that_arrives_fast_enough_may_take_longer(service: Served) -> None:
    part = http_protocol.MIN_TICK_BYTES
    count = 2 * http_protocol.MAX_SLOW_TICKS
    client = await service.connect()
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (count * part)
    client.writer.write(head)
    (one,) = service.open
    for _ in range(count):
        client.writer.write(bytes(part))
        await wait_until("the part", lambda: one.received >= part or not one.unfinished)
        service.pass_seconds(1)
    assert (await client.response()).body == b"%d" % (count * part)


async def test_a_client_that_says_nothing_is_closed_without_a_word(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await service.connect()
    assert await client.rest() == b""
    client = await service.connect(b"\r\n" * 9)
    assert await client.rest() == b""
    await service.closed()


async def test_half_a_request_is_refused_by_the_clock(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await service.connect(HALF_HEAD)
    assert (await client.response()).status == 408


async def test_a_body_that_stops_after_an_early_response_ends_the_connection(
    service: Served,
) -> None:
    client = await service.connect()
    response = await client.ask(HALF_BODY.replace(b"POST /", b"POST /early"))
    assert response.status == 200
    service.pass_seconds(31)
    assert await client.rest() == b""


async def test_a_request_that_runs_and_an_idle_connection_have_no_clock(service: Served) -> None:
    idle, running = await service.connect(), await service.connect()
    assert (await idle.ask(GET)).status == 200
    running.writer.write(GET.replace(b"/", b"/held", 1))
    await wait_until("a running request", lambda: service.work.asked == 2)
    service.pass_seconds(1000)
    service.work.released.set()
    assert (await running.response()).status == 200
    assert (await idle.ask(GET)).status == 200


async def test_a_client_whose_bytes_we_do_not_take_has_no_clock(service: Served) -> None:
    size = 4 * MIB
    client = await service.connect()
    head = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    client.writer.write(head + bytes(size))
    (one,) = service.open
    await wait_until("a pause", lambda: one.flow.read_paused)
    service.pass_seconds(1000)
    service.work.released.set()
    assert (await client.response()).body == b"%d" % size


async def test_an_idle_connection_is_closed_whatever_empty_lines_it_sends() -> None:
    async with serving(timeout_keep_alive=0.05) as service:
        client = await service.connect()
        assert (await client.ask(GET)).status == 200
        client.writer.write(b"\r\n")
        assert await client.rest() == b""


async def test_a_request_that_began_before_the_response_is_not_taken_for_idle(
    service: Served,
) -> None:
    client = await service.connect()
    held = GET.replace(b"/", b"/held", 1)
    client.writer.write(GET + held[:-4])
    assert (await client.response()).status == 200
    (one,) = service.open
    assert one.timeout_keep_alive_task
    client.writer.write(held[-4:])
    await wait_until("the request", lambda: service.work.asked == 2)
    assert one.timeout_keep_alive_task is None
    service.work.released.set()
    assert (await client.response()).status == 200


# --- Too many callers ---


async def later_than(now: float) -> None:
    """By the clock of the loop, which knows milliseconds."""
    loop = asyncio.get_running_loop()
    await wait_until("another millisecond", lambda: loop.time() > now)


async def test_the_connection_that_is_idle_for_longest_makes_room(small: Served) -> None:
    clients = [await small.connect() for _ in range(LIMIT)]
    loop = asyncio.get_running_loop()
    for client in (clients[1], clients[0], clients[2]):
        assert (await client.ask(GET)).status == 200
        await later_than(loop.time())
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 200
    assert await clients[1].rest() == b""
    assert (await clients[0].ask(GET)).status == 200
    assert (await clients[2].ask(GET)).status == 200


@pytest.mark.parametrize("sent", [b"", b"\r\n", HALF_HEAD, HALF_BODY, CHUNK])
async def test_connections_that_send_nothing_or_slowly_make_room(
    small: Served, sent: bytes
) -> None:
    slow = [await small.connect(sent) for _ in range(LIMIT)]
    for one in small.open:
        one.tick()
    for _ in range(20):
        newcomer = await small.connect()
        assert (await newcomer.ask(GET)).status == 200
    if sent.strip():
        for client in slow:
            response = await client.response()
            assert response.problem["code"] == "too_many_connections"
            assert response.headers["retry-after"] == "1"
    for client in slow:
        assert await client.rest() == b""
    await small.closed(LIMIT)


async def test_a_connection_that_only_waits_for_the_client_to_close_goes_first(
    small: Served,
) -> None:
    refused = await small.connect()
    assert (await refused.ask(b"nonsense\r\n\r\n")).status == 400
    idle = [await small.connect() for _ in range(LIMIT - 1)]
    for client in idle:
        assert (await client.ask(GET)).status == 200
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 200
    await small.closed(LIMIT)
    for client in idle:
        assert (await client.ask(GET)).status == 200


async def hold(small: Served) -> list[Client]:
    """As many running requests as there may be connections."""
    clients = [await small.connect() for _ in range(LIMIT)]
    for client in clients:
        client.writer.write(GET.replace(b"/", b"/held", 1))
    await wait_until("running requests", lambda: small.work.asked == LIMIT)
    return clients


async def test_when_all_are_busy_the_answer_is_503_and_the_process_is_alive(small: Served) -> None:
    busy = await hold(small)
    for _ in range(3):
        newcomer = await small.connect()
        response = await newcomer.ask(GET)
        assert response.problem["code"] == "too_many_connections"
        assert (response.headers["retry-after"], response.status) == ("1", 503)
        assert await newcomer.rest() == b""
        probe = await small.connect()
        assert (await probe.ask(LIVE)).status == 200
    small.work.released.set()
    for client in busy:
        assert (await client.response()).status == 200
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 200


async def test_a_flood_of_silent_connections_stays_within_the_limit_and_one(small: Served) -> None:
    await hold(small)
    for _ in range(30):
        await small.connect()
        await wait_until("room", lambda: len(small.open) <= LIMIT + 1)
    probe = await small.connect()
    assert (await probe.ask(LIVE)).status == 200


async def test_silent_connections_are_closed_by_the_clock_also_when_there_are_too_many(
    small: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    await hold(small)
    newcomer = await small.connect()
    assert await newcomer.rest() == b""
    await small.closed(LIMIT)


async def test_a_newcomer_is_served_if_there_is_room_when_its_request_comes(small: Served) -> None:
    busy = await hold(small)
    newcomer = await small.connect()
    small.work.released.set()
    for client in busy:
        await client.response()
        client.writer.close()
    await small.closed(1)
    assert (await newcomer.ask(GET)).status == 200


async def test_a_request_that_waits_behind_a_running_one_is_not_closed(small: Served) -> None:
    for _ in range(LIMIT):
        client = await small.connect()
        client.writer.write(GET.replace(b"/", b"/held", 1) + HALF_BODY)
    await wait_until("running requests", lambda: small.work.asked == LIMIT)
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 503
    assert len([one for one in small.open if not one.discarding]) == LIMIT


# --- Clients that read nothing ---

LARGE = GET.replace(b"/", b"/large", 1)


def watch(served: Served) -> int:
    """A second passes → how many connections are open."""
    for one in list(served.open):
        one.check_sending()
    return len(served.open)


async def test_a_client_that_reads_nothing_is_cut_off_after_30_seconds(service: Served) -> None:
    await service.connect(LARGE)
    seconds = 0

    def ended() -> bool:
        nonlocal seconds
        seconds += 1
        return watch(service) == 0

    await wait_until("the end", ended)
    assert seconds > http_protocol.MAX_SLOW_TICKS


async def test_a_client_that_reads_slowly_is_not_cut_off(service: Served) -> None:
    client = await service.connect(LARGE)
    for _ in range(3):
        for _ in range(http_protocol.MAX_SLOW_TICKS - 1):
            watch(service)
        await client.reader.readexactly(8 * MIB)
    assert watch(service) == 1


async def test_a_connection_with_a_request_makes_room_once_its_client_takes_nothing(
    service: Served,
) -> None:
    client = await service.connect()
    client.writer.write(GET.replace(b"/", b"/held", 1))
    await wait_until("the request", lambda: service.work.asked == 1)
    (one,) = service.open
    assert not one.evictable
    one._stalled = http_protocol.STALLED_TICKS
    assert one.evictable
    service.work.released.set()
    assert (await client.response()).status == 200


async def test_clients_that_read_nothing_make_room_for_others(small: Served) -> None:
    for _ in range(LIMIT):
        await small.connect(LARGE)

    def look() -> bool:
        watch(small)
        return all(one.evictable for one in small.open)

    await wait_until("clients that take nothing", look)
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 200
