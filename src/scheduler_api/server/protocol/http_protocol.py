"""One HTTP/1.1 connection: uvicorn's protocol, with limits and a problem for each refusal.

The only module that knows the private attributes of uvicorn's protocol and of httptools.
"""

import asyncio
from collections.abc import Sized
from typing import Any, Final

import httptools
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from scheduler_api.api.http import Problem, problem
from scheduler_api.domain.errors import (
    HeadTooLarge,
    Malformed,
    RequestTimeout,
    SchedulerError,
    TooManyConnections,
)
from scheduler_api.server.protocol.coalescing_transport import CoalescingTransport
from scheduler_api.server.protocol.connections import Connections

MAX_HEAD: Final = 64 * 1024  # bytes of a request's head, of a chunk's extensions, of trailers
MAX_FIELDS: Final = 200  # header fields of a request
MIN_PACE: Final = 64 * 1024  # bytes a tick; a body that arrives as fast may take its time
MAX_TICKS: Final = 30  # at less than that pace: for a request to arrive, for a client to close
STALLED_TICKS: Final = 3  # in which a client took no byte of a response; then others may go first
MAX_DISCARDED: Final = 64 * 1024**2  # bytes that are read after a refusal, so that it can be read

# Called for each request: super() would look each of them up again.
_on_message_begin = HttpToolsProtocol.on_message_begin
_on_headers_complete = HttpToolsProtocol.on_headers_complete
_on_body = HttpToolsProtocol.on_body
_on_message_complete = HttpToolsProtocol.on_message_complete


class HttpProtocol(HttpToolsProtocol):
    """Gives each request exactly one response, also those that cannot be read."""

    transport: CoalescingTransport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        # uvicorn would refuse every request over the limit, health too, as text/plain.
        self._others = Connections.of(server_state, self.limit_concurrency, self.loop)
        self.limit_concurrency = None
        self.unfinished = True  # the clock runs: nothing arrived yet, half a request, a close
        self.ticks = 0  # seen while unfinished
        self.received = 0  # bytes since the last tick
        self.discarding = False  # nothing more is parsed
        self._packet = 0  # bytes of the last one
        self._first_packet = 0  # bytes of the one in which the request began, perhaps at its end
        self._unparsed = 0  # bytes since, in heads, chunk extensions or trailers: at least these
        self._discarded = 0  # bytes
        self._stalled = 0  # ticks in a row in which the client took no byte of a response
        self._unsent = 0  # bytes at the last tick
        self._may_linger = True

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Write through the transport of ours, and count as open."""
        coalescing = CoalescingTransport(transport, self.loop, self._linger)
        super().connection_made(coalescing)
        self.flow = _Flow(coalescing, self.pipeline)
        self._others.add(self)

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what is no HTTP, too large or too much."""
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
                self._go_on(memoryview(data)[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self.refuse(_reason(error))
        else:
            if self.unfinished and self._unparsed > MAX_HEAD:
                self.refuse(HeadTooLarge())

    def _go_on(self, rest: memoryview) -> None:
        """Parse what follows a head that asks for another protocol."""
        while True:
            if self.parser.get_method() == b"CONNECT":
                self._answer(_no_tunnel())
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

        The parser takes what follows such a head for another protocol: the body would be lost,
        or read as the next request.
        """
        parser, headers = self.parser, self.headers
        line = parser.get_method(), self.url, parser.get_http_version().encode()
        fields = [b"%b: %b\r\n" % it for it in headers if it[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self.parser.feed_data(b"%b %b HTTP/%b\r\n" % line + b"".join(fields) + b"\r\n")

    def _should_upgrade(self) -> bool:
        # Asked only about a head with an Upgrade: True keeps uvicorn from running the request.
        return True

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self.timeout_keep_alive_task:
            self._unset_keepalive_if_required()
        self.unfinished, self.ticks = True, 0
        self._first_packet = self._packet
        _on_message_begin(self)

    def on_headers_complete(self) -> None:
        """Run the request, if its head is within the limits."""
        if len(self.headers) > MAX_FIELDS or (
            self._unparsed + self._first_packet > MAX_HEAD and self._head_size() > MAX_HEAD
        ):
            raise HeadTooLarge
        _on_headers_complete(self)

    def on_chunk_header(self) -> None:
        """What comes as a field from now on is a trailer, which is no part of the head."""
        self.headers = []

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self._unparsed = 0
        _on_body(self, body)

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        if self.timeout_keep_alive_task:  # the response before came in the middle of it
            self._unset_keepalive_if_required()
        self.unfinished, self._unparsed = False, 0
        _on_message_complete(self)

    def _head_size(self) -> int:
        fields = sum(len(name) + len(value) + len(": \r\n") for name, value in self.headers)
        line = len(self.parser.get_method()) + len(self.url) + len("  HTTP/1.1\r\n")
        return line + fields + len("\r\n")

    def refuse(self, error: SchedulerError) -> None:
        """Answer with this error, after the requests before it, and read nothing more."""
        cycle = self.cycle
        if not self.unfinished or cycle is None or cycle.scope is not self.scope:
            self._answer(problem(error))
            return
        # The head was good, so the request is running, or waits to: where it reads its body, it
        # meets the error. One that reads none is answered as ever.
        self._stop_parsing()
        cycle.keep_alive = False
        if cycle.response_started:
            cycle.disconnected = True  # one that is not complete is cut off
            cycle.message_event.set()
            self.transport.close()
        else:
            cycle.body = _Unreadable(error)  # type: ignore[assignment]
            cycle.message_event.set()

    def _answer(self, response: ASGIApp) -> None:
        """As a request that has no cycle of its own yet."""
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
        self._unset_keepalive_if_required()
        self.discarding, self.unfinished = True, False

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > MAX_DISCARDED:
            self.transport.abort()

    def _linger(self) -> bool:
        """Whether the client may still be sending; what it sends is then discarded."""
        if self.cycle is None or not (self.unfinished or self.discarding) or not self._may_linger:
            return False
        self.discarding = self.unfinished = True
        self.ticks = 0
        self.pipeline.clear()  # those behind a close are not answered
        self.flow.resume_reading()
        return True

    def tick(self) -> None:
        """A second has passed while this connection was unfinished."""
        if self.flow.read_paused:  # the application is behind, not the client
            return
        self.ticks += self.received < MIN_PACE
        self.received = 0
        if self.ticks < MAX_TICKS:
            return
        if self.transport.lingering:
            self.transport.abort()
        elif self.scope is None:
            self.transport.close()
        else:
            self.refuse(RequestTimeout())

    def watch_sending(self) -> None:
        """A second has passed: cut off a client that reads nothing of its response."""
        unsent = self.transport.get_write_buffer_size()
        self._stalled = self._stalled + 1 if unsent and unsent == self._unsent else 0
        self._unsent = unsent
        if self._stalled >= MAX_TICKS:
            self.transport.abort()

    @property
    def evictable(self) -> bool:
        """Whether no request is running, so that others may have this connection's place."""
        cycle = self.cycle
        if self._stalled >= STALLED_TICKS:
            return True
        if self.transport.lingering or cycle is None or cycle.response_complete:
            return True
        return self.unfinished and cycle.more_body and not self.pipeline

    @property
    def idle_until(self) -> float:
        """When it is closed as idle, by the loop's clock; never: infinite."""
        if self.transport.lingering:
            return 0.0
        timer = self.timeout_keep_alive_task
        return timer.when() if timer else float("inf")

    def evict(self) -> None:
        """Make room for another."""
        self._may_linger = False
        if self.transport.lingering or self._stalled:
            self.transport.abort()
        elif self.unfinished and self.scope is not None:
            self.refuse(TooManyConnections())
        else:
            self.transport.close()

    def shutdown(self) -> None:
        """The server ends: wait for no client but those that wait for a response."""
        if self.transport.lingering:
            self.transport.abort()
            return
        if self.cycle is None or self.cycle.response_complete:
            self._may_linger = False
        super().shutdown()


class _Flow(FlowControl):
    """Reads no more while requests wait for those before them.

    uvicorn reads on with every response, so one packet full of small requests for each of them: a
    client that sends them faster than they are answered would fill the memory.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        # uvicorn calls this just before it takes the next one: the last one may need its body.
        if self.read_paused and len(self._waiting) <= 1:
            super().resume_reading()


class _Unreadable:
    """In place of a body's bytes: whoever reads them gets the error."""

    def __init__(self, error: SchedulerError) -> None:
        self._error = error

    def __bytes__(self) -> bytes:
        raise self._error


def _reason(error: httptools.HttpParserError) -> SchedulerError:
    cause = error.__context__
    if isinstance(cause, SchedulerError):
        return cause
    if isinstance(error, httptools.HttpParserCallbackError):
        return Malformed("The request target is not a valid URL; percent-encode what is not ASCII.")
    return Malformed(f"The request is not valid HTTP/1.1: {error}.")


def _no_tunnel() -> Problem:
    detail = "This server is no proxy and opens no tunnels; ask for a path with another method."
    return Problem(405, "Method Not Allowed", "method_not_allowed", detail, headers={"Allow": ""})
