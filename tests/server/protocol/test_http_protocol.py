"""The end of a connection: closes without a reset, slow requests and readers, too many clients."""

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
SECOND = 0.002  # between two checks, for tests that use the real clock


class Work:
    """Paths of a test application; the response to / is the size of the body."""

    def __init__(self) -> None:
        self.released = asyncio.Event()
        self.asked = 0

    async def size(self, request: Request) -> PlainTextResponse:
        """Responds with the size of the body."""
        self.asked += 1
        return PlainTextResponse(str(len(await request.body())))

    async def held(self, request: Request) -> PlainTextResponse:
        """As `size`, but not before it is released."""
        self.asked += 1
        await self.released.wait()
        return PlainTextResponse(str(len(await request.body())))

    async def early(self, _: Request) -> PlainTextResponse:
        """Responds without reading the body."""
        return PlainTextResponse("early")

    async def large(self, _: Request) -> PlainTextResponse:
        """Responds with more than the buffers of a connection hold."""
        return PlainTextResponse(b"a" * 32 * MIB)

    async def stream(self, request: Request) -> StreamingResponse:
        """Begins its response at once; ends it when released, or after reading the whole body."""

        async def parts() -> AsyncIterator[bytes]:
            yield b"begun"
            if "read" in request.query_params:
                await request.body()
            await self.released.wait()
            yield b"ended"

        return StreamingResponse(parts())

    def application(self) -> Starlette:
        """The application of the product, with these paths."""
        app = create_app()
        paths = {"/": self.size, "/held": self.held, "/early": self.early, "/stream": self.stream}
        paths["/large"] = self.large
        for path, work in paths.items():
            app.router.routes.append(Route(path, work, methods=["POST", "GET"]))
        return app


class Client:
    """A client connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Response:
        """Send a request, and wait for its response."""
        self.writer.write(request)
        return await self.response()

    async def response(self) -> Response:
        """The next response."""
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        return responses(head + await self.reader.readexactly(size))[0]

    async def rest(self) -> bytes:
        """All bytes until the server closes."""
        return await asyncio.wait_for(self.reader.read(), 10)


class Served:
    """A server with that application, and its clients."""

    def __init__(self, server: uvicorn.Server, port: int, work: Work) -> None:
        self.port = port
        self.work = work
        self.server = server
        self._clients: list[Client] = []

    @property
    def open(self) -> set[HttpProtocol]:
        """The connections that the server has open."""
        return cast("set[HttpProtocol]", self.server.server_state.connections)

    async def connect(self, sent: bytes = b"") -> Client:
        """A client that has sent these bytes, after the server has read them."""
        before = set(self.open)
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        await wait_until(
            "the connection at the server", lambda: bool(self.open - before) or not before
        )
        if sent:
            (one,) = self.open - before
            client.writer.write(sent)
            await wait_until(
                "the bytes at the server", lambda: one.received >= len(sent) or one not in self.open
            )
        return client

    def pass_seconds(self, count: int) -> None:
        """Run so many ticks at once."""
        for _ in range(count):
            for one in [one for one in self.open if one.unfinished]:
                one.tick()

    async def closed(self, count: int = 0) -> None:
        """Wait until so many connections are open."""
        await wait_until(f"{count} connections", lambda: len(self.open) == count)

    def close_clients(self) -> None:
        """Close all clients."""
        for client in self._clients:
            client.writer.close()


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Served]:
    """A server with these options of uvicorn."""
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
    """A server without a limit of connections."""
    async with serving() as one:
        yield one


@pytest.fixture
async def small() -> AsyncIterator[Served]:
    """A server with a limit of three connections."""
    async with serving(limit_concurrency=LIMIT) as one:
        yield one


# --- Closes without a reset ---


def post_then_read(port: int, size: int, *, chunked: bool) -> tuple[int, Any]:
    """As http.client does: send everything, then read."""
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
async def test_close_lets_a_client_that_sends_before_it_reads_get_its_413(
    api: Api, size: int, chunked: bool
) -> None:
    status, found = await asyncio.to_thread(post_then_read, api.port, size, chunked=chunked)
    assert (status, found["code"]) == (413, "payload_too_large")


async def too_large(api: Api) -> Client:
    """A client whose request was refused in the middle of its body."""
    client = Client(*await asyncio.open_connection("127.0.0.1", api.port))
    head = f"POST /messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
    response = await client.ask(f"{head}Content-Length: {2 * MAX_BODY}\r\n\r\n".encode() + b"a" * 9)
    assert response.status == 413
    assert response.headers["connection"] == "close"
    return client


def of(api: Api) -> set[HttpProtocol]:
    """The connections of the server."""
    return cast("set[HttpProtocol]", api.server.server_state.connections)


async def test_close_after_a_413_is_immediate_and_the_rest_is_discarded(api: Api) -> None:
    client = await too_large(api)
    assert await client.rest() == b""
    client.writer.write(b"a" * MAX_BODY)
    await client.writer.drain()
    assert len(of(api)) == 1
    client.writer.close()
    await wait_until("no open connection", lambda: not of(api))


async def test_close_after_a_413_reads_no_more_than_a_limit(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "MAX_DISCARDED", MAX_BODY)
    client = await too_large(api)
    client.writer.write(b"a" * (MAX_BODY + 1))
    await wait_until("no open connection", lambda: not of(api))
    client.writer.close()


async def test_close_after_a_413_waits_half_a_minute_for_the_client(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await too_large(api)
    await wait_until("no open connection", lambda: not of(api))
    client.writer.close()


async def test_shutdown_does_not_wait_for_clients_that_have_their_response(api: Api) -> None:
    client = await too_large(api)
    (one,) = of(api)
    one.shutdown()
    await wait_until("no open connection", lambda: not of(api))
    client.writer.close()


@pytest.mark.parametrize("path", [b"/stream", b"/stream?read"])
async def test_invalid_chunk_after_the_start_of_the_response_cuts_it_off(
    service: Served, path: bytes
) -> None:
    client = await service.connect(CHUNK.replace(b"/", path, 1))
    await client.reader.readuntil(b"begun\r\n")
    with capture_logs() as logs:
        client.writer.write(b"no chunk\r\n")
        assert await client.rest() == b""
        await wait_until("no running request", lambda: not service.server.server_state.tasks)
    assert logs == []


# --- Slow requests ---

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
async def test_tick_refuses_a_request_that_takes_longer_than_30_seconds_with_408(
    service: Served, sent: bytes
) -> None:
    client = await service.connect(sent)
    service.pass_seconds(29)
    assert not any(one.discarding for one in service.open)
    service.pass_seconds(2)  # the first tick counts bytes that arrived before
    response = await client.response()
    assert response.problem["code"] == "request_timeout"
    assert response.headers["connection"] == "close"
    assert await client.rest() == b""
    client.writer.close()
    await service.closed()


async def test_tick_refuses_a_request_of_single_slow_bytes(service: Served) -> None:
    client = await service.connect(HALF_HEAD)
    for _ in range(http_protocol.MAX_SLOW_TICKS):
        client.writer.write(b"a")
        await wait_until("the byte", lambda: all(one.received for one in service.open))
        service.pass_seconds(1)
    assert (await client.response()).status == 408


async def test_tick_accepts_a_fast_body_that_takes_longer(service: Served) -> None:
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


async def test_tick_closes_a_silent_connection_without_a_response(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await service.connect()
    assert await client.rest() == b""
    client = await service.connect(b"\r\n" * 9)
    assert await client.rest() == b""
    await service.closed()


async def test_tick_refuses_half_a_request_by_the_real_clock(
    service: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    client = await service.connect(HALF_HEAD)
    assert (await client.response()).status == 408


async def test_tick_ends_a_connection_whose_body_stops_after_an_early_response(
    service: Served,
) -> None:
    client = await service.connect()
    response = await client.ask(HALF_BODY.replace(b"POST /", b"POST /early"))
    assert response.status == 200
    service.pass_seconds(31)
    assert await client.rest() == b""


async def test_tick_ignores_running_requests_and_idle_connections(service: Served) -> None:
    idle, running = await service.connect(), await service.connect()
    assert (await idle.ask(GET)).status == 200
    running.writer.write(GET.replace(b"/", b"/held", 1))
    await wait_until("a running request", lambda: service.work.asked == 2)
    service.pass_seconds(1000)
    service.work.released.set()
    assert (await running.response()).status == 200
    assert (await idle.ask(GET)).status == 200


async def test_tick_ignores_a_client_while_reading_is_paused(service: Served) -> None:
    size = 4 * MIB
    client = await service.connect()
    head = b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size
    client.writer.write(head + bytes(size))
    (one,) = service.open
    await wait_until("a pause", lambda: one.flow.read_paused)
    service.pass_seconds(1000)
    service.work.released.set()
    assert (await client.response()).body == b"%d" % size


async def test_idle_timeout_is_not_reset_by_empty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    async with serving(timeout_keep_alive=0.05) as service:
        client = await service.connect()
        assert (await client.ask(GET)).status == 200
        client.writer.write(b"\r\n")
        assert await client.rest() == b""


async def test_idle_timeout_does_not_run_while_the_next_request_arrives(
    service: Served,
) -> None:
    client = await service.connect()
    held = GET.replace(b"/", b"/held", 1)
    client.writer.write(GET + held[:-4])
    assert (await client.response()).status == 200
    (one,) = service.open
    assert one.idle_until < http_protocol.NEVER
    client.writer.write(held[-4:])
    await wait_until("the request", lambda: service.work.asked == 2)
    assert one.idle_until == http_protocol.NEVER
    service.work.released.set()
    assert (await client.response()).status == 200


# --- Too many connections ---


async def later_than(now: float) -> None:
    """Wait until the clock of the loop, in milliseconds, is later."""
    loop = asyncio.get_running_loop()
    await wait_until("another millisecond", lambda: loop.time() > now)


async def test_add_over_the_limit_closes_the_longest_idle_connection(small: Served) -> None:
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
async def test_add_over_the_limit_closes_silent_and_slow_connections(
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


async def test_add_over_the_limit_first_closes_a_connection_that_waits_for_the_client_to_close(
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
    """As many running requests as connections are allowed."""
    clients = [await small.connect() for _ in range(LIMIT)]
    for client in clients:
        client.writer.write(GET.replace(b"/", b"/held", 1))
    await wait_until("running requests", lambda: small.work.asked == LIMIT)
    return clients


async def test_add_over_the_limit_refuses_with_503_when_all_are_busy_but_not_the_liveness_check(
    small: Served,
) -> None:
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


async def test_add_keeps_a_flood_of_silent_connections_at_the_limit_plus_one(small: Served) -> None:
    await hold(small)
    for _ in range(30):
        await small.connect()
        await wait_until("room", lambda: len(small.open) <= LIMIT + 1)
    probe = await small.connect()
    assert (await probe.ask(LIVE)).status == 200


async def test_tick_closes_silent_connections_over_the_limit_too(
    small: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "TICK", SECOND)
    await hold(small)
    newcomer = await small.connect()
    assert await newcomer.rest() == b""
    await small.closed(LIMIT)


async def test_add_over_the_limit_serves_a_request_if_there_is_room_when_it_arrives(
    small: Served,
) -> None:
    busy = await hold(small)
    newcomer = await small.connect()
    small.work.released.set()
    for client in busy:
        await client.response()
        client.writer.close()
    await small.closed(1)
    assert (await newcomer.ask(GET)).status == 200


async def test_add_over_the_limit_does_not_close_a_connection_with_a_pipelined_request(
    small: Served,
) -> None:
    for _ in range(LIMIT):
        client = await small.connect()
        client.writer.write(GET.replace(b"/", b"/held", 1) + HALF_BODY)
    await wait_until("running requests", lambda: small.work.asked == LIMIT)
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 503
    assert len([one for one in small.open if not one.discarding]) == LIMIT


# --- Slow readers ---

LARGE = GET.replace(b"/", b"/large", 1)


def watch(served: Served) -> int:
    """Check once → how many connections are open."""
    for one in list(served.open):
        one.check()
    return len(served.open)


async def test_check_aborts_a_client_that_reads_nothing_for_30_seconds(
    service: Served,
) -> None:
    await service.connect(LARGE)
    seconds = 0

    def ended() -> bool:
        nonlocal seconds
        seconds += 1
        return watch(service) == 0

    await wait_until("the end", ended)
    assert seconds > http_protocol.MAX_SLOW_TICKS


async def test_check_keeps_a_client_that_reads_slowly(service: Served) -> None:
    client = await service.connect(LARGE)
    for _ in range(3):
        for _ in range(http_protocol.MAX_SLOW_TICKS - 1):
            watch(service)
        await client.reader.readexactly(8 * MIB)
    assert watch(service) == 1


async def test_add_over_the_limit_closes_a_connection_whose_client_reads_nothing(
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


async def test_add_over_the_limit_replaces_clients_that_read_nothing(small: Served) -> None:
    for _ in range(LIMIT):
        await small.connect(LARGE)

    def look() -> bool:
        watch(small)
        return all(one.evictable for one in small.open)

    await wait_until("clients that read nothing", look)
    newcomer = await small.connect()
    assert (await newcomer.ask(GET)).status == 200
