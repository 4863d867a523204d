"""One HTTP/1.1 connection: uvicorn's protocol with limits, and a problem response to each refusal.

The only module that uses undocumented attributes of uvicorn's protocol; tests/test_private_apis.py
lists them. uvicorn has no timeout of a request and no limit of a head (uvicorn issue 157).
"""

import asyncio
from typing import Any, Final

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from scheduler_api.api.http import problem
from scheduler_api.domain.errors import (
    HeadTooLarge,
    RequestTimeout,
    SchedulerError,
    TooManyConnections,
)
from scheduler_api.server.protocol.coalescing_transport import CoalescingTransport
from scheduler_api.server.protocol.connections import Connections
from scheduler_api.server.protocol.pipeline_flow import PipelineFlow
from scheduler_api.server.protocol.refusals import UnreadableBody, no_tunnel, parse_error

MAX_HEAD: Final = 64 * 1024  # bytes of a request head, of chunk extensions, of trailers
MAX_FIELDS: Final = 200  # header fields in a request
MIN_TICK_BYTES: Final = 64 * 1024  # received in a tick; a client that sends less is slow
MAX_SLOW_TICKS: Final = 30  # slow ticks until a request, or the client's close, must be there
STALLED_TICKS: Final = 3  # ticks without a byte of a response read; then it may be evicted
NEVER: Final = float("inf")  # loop time
MAX_DISCARDED: Final = 64 * 1024**2  # bytes read after a refusal, so that the client can read it

# Called for each request; super() would look them up each time.
_on_message_begin = HttpToolsProtocol.on_message_begin
_on_headers_complete = HttpToolsProtocol.on_headers_complete
_on_body = HttpToolsProtocol.on_body
_on_message_complete = HttpToolsProtocol.on_message_complete


class HttpProtocol(HttpToolsProtocol):
    """Sends exactly one response to each request, including those that cannot be parsed."""

    transport: CoalescingTransport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn would refuse every request over the limit, also to /health, as text/plain, and has
        # no option against it. No upstream issue is known.
        self._connections = Connections.of(server_state, self.limit_concurrency, self.loop)
        self.limit_concurrency = None
        self.unfinished = True  # ticks count: we wait for a request, its rest, or a close
        self.ticks = 0  # slow ticks while unfinished
        self.received = 0  # bytes since the last tick
        self.discarding = False  # what arrives is dropped
        self._packet = 0  # bytes of the last packet
        self._first_packet = 0  # bytes of the packet in which the request began
        self._unparsed = 0  # bytes of heads, chunk extensions or trailers since then, at least
        self._discarded = 0  # bytes
        self._stalled = 0  # ticks in a row in which the client read no byte of a response
        self._unsent = 0  # bytes at the last tick, not yet read by the client
        self._may_linger = True  # whether a close waits for the client
        self._idle_since = NEVER  # when it began to wait for a request, loop time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Write through our transport, and count this connection as open."""
        coalescing = CoalescingTransport(transport, self.loop, self._linger)
        super().connection_made(coalescing)
        self.flow = PipelineFlow(coalescing, self.pipeline)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse the bytes; refuse what is not HTTP or too large."""
        if self.discarding:
            self._discard(len(data))
            return
        self._packet = size = len(data)
        self.received += size
        self._unparsed = self._unparsed + size if self.unfinished else size
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._parse_after_upgrade(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self.refuse(parse_error(error))
        else:
            if self.unfinished and self._unparsed > MAX_HEAD:
                self.refuse(HeadTooLarge())

    def _parse_after_upgrade(self, rest: memoryview) -> None:
        """Parse the bytes after a head with an Upgrade, or refuse a CONNECT."""
        while True:
            if self.parser.get_method() == b"CONNECT":
                self._respond(no_tunnel())
                return
            self._ignore_upgrade()
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            else:
                return

    def _ignore_upgrade(self) -> None:
        """Parse the head again without its Upgrade (RFC 9110, section 7.8).

        The parser takes the bytes after such a head for another protocol: the body would be lost,
        or read as the next request (uvicorn issue 2722, httptools issue 124: both open).
        """
        parser, headers = self.parser, self.headers
        line = parser.get_method(), self.url, parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % it for it in headers if it[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"%b %b HTTP/%b\r\n" % line + b"".join(fields) + b"\r\n")

    def _should_upgrade(self) -> bool:
        # Called only for a head with an Upgrade; True keeps uvicorn from running the request.
        return True

    def on_message_begin(self) -> None:
        """Begin a request."""
        self.unfinished, self.ticks = True, 0
        self._idle_since = NEVER
        self._first_packet = self._packet
        _on_message_begin(self)

    def on_headers_complete(self) -> None:
        """Run the request if its head is within the limits."""
        if len(self.headers) > MAX_FIELDS or (
            self._unparsed + self._first_packet > MAX_HEAD and self._head_size() > MAX_HEAD
        ):
            raise HeadTooLarge
        _on_headers_complete(self)

    def on_chunk_header(self) -> None:
        """Keep trailers, which arrive as header fields from now on, out of the head."""
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """Pass on a part of the body."""
        self._unparsed = 0
        _on_body(self, body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._idle_since = NEVER  # the previous response may have ended while it arrived
        self.unfinished, self._unparsed = False, 0
        _on_message_complete(self)

    def on_response_complete(self) -> None:
        """Begin the next request that was received, or the idle time."""
        # uvicorn sets a timer for the idle time of each request.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since = self.loop.time()

    def _head_size(self) -> int:
        fields = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + fields + len("\r\n")

    def refuse(self, error: SchedulerError) -> None:
        """Respond with this error, after the responses to earlier requests; then read no more."""
        cycle = self.cycle
        if not self.unfinished or cycle is None or cycle.scope is not self.scope:
            self._respond(problem(error))
            return
        # The head was valid, so the request runs or is queued. It gets the error when it reads its
        # body; a request that reads no body gets its usual response.
        self._stop_parsing()
        cycle.keep_alive = False
        if cycle.response_started:
            cycle.disconnected = True  # cuts the response off
            cycle.message_event.set()
            self.transport.close()
        else:
            cycle.body = UnreadableBody(error)  # type: ignore[assignment]
            cycle.message_event.set()

    def _respond(self, response: ASGIApp) -> None:
        """Send a response to a request that has no cycle yet."""
        self._stop_parsing()
        before = self.cycle
        method = "HEAD" if self.url and self.parser.get_method() == b"HEAD" else "GET"
        unknown = {"method": method, "path": "", "raw_path": b"", "query_string": b""}
        self.cycle = RequestResponseCycle(
            scope=unknown | self.scope,  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, response)  # type: ignore[arg-type]
        else:
            self.pipeline.appendleft((self.cycle, response))  # type: ignore[arg-type]

    def _stop_parsing(self) -> None:
        self._idle_since = NEVER
        self.discarding, self.unfinished = True, False

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > MAX_DISCARDED:
            self.transport.abort()

    def _linger(self) -> bool:
        """Whether the client may still be sending; if so, discard what it sends."""
        if self.cycle is None or not (self.unfinished or self.discarding) or not self._may_linger:
            return False
        self.discarding = self.unfinished = True
        self.ticks = 0
        self.pipeline.clear()  # requests after a close get no response
        self.flow.resume_reading()
        return True

    def tick(self) -> None:
        """Count a second in which it was unfinished; end it after too many slow ones."""
        if self.flow.read_paused:  # the application is slow, not the client
            return
        self.ticks += self.received < MIN_TICK_BYTES
        self.received = 0
        if self.ticks < MAX_SLOW_TICKS:
            return
        if self.transport.lingering:
            self.transport.abort()
        elif self.scope is None:
            self.transport.close()
        else:
            self.refuse(RequestTimeout())

    def check(self) -> None:
        """Once a second: end it if the client does not read its response, or sends no request."""
        if self.loop.time() - self._idle_since >= self.timeout_keep_alive:
            self.transport.close()
        unsent = self.transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if unsent and unsent == self._unsent else 0
        self._unsent = unsent
        if self._stalled >= MAX_SLOW_TICKS:
            self.transport.abort()

    @property
    def evictable(self) -> bool:
        """Whether no request is running, so that it may be closed to make room."""
        cycle = self.cycle
        if self._stalled >= STALLED_TICKS:
            return True
        if self.transport.lingering or cycle is None or cycle.response_complete:
            return True
        return self.unfinished and cycle.more_body and not self.pipeline

    @property
    def idle_until(self) -> float:
        """When it will be closed as idle, loop time; infinity: never."""
        if self.transport.lingering:
            return 0.0
        return self._idle_since + self.timeout_keep_alive

    def evict(self) -> None:
        """Close it to make room for another connection."""
        self._may_linger = False
        if self.transport.lingering or self._stalled:
            self.transport.abort()
        elif self.unfinished and self.scope is not None:
            self.refuse(TooManyConnections())
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """At the end of the server: wait only for clients that wait for a response."""
        if self.transport.lingering:
            self.transport.abort()
            return
        if self.cycle is None or self.cycle.response_complete:
            self._may_linger = False
        super().shutdown()
