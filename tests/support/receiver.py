"""An HTTP server that receives webhooks: it records requests, and answers as a test sets."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from multidict import CIMultiDict

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Received:
    """One request."""

    method: str
    path: str
    headers: CIMultiDict[str]
    body: bytes
    at: float  # seconds since 1970


@dataclass
class Receiver:
    """The recorded requests, and the answers to give."""

    url: str = ""
    requests: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)  # of the next responses; then 200
    answer_headers: dict[str, str] = field(default_factory=dict)
    hold: asyncio.Event = field(default_factory=asyncio.Event)  # responses wait for it
    answer: Answer | None = None  # used instead of all this
    gone: int = 0  # requests whose client left before the response

    def __post_init__(self) -> None:
        self.hold.set()

    def bodies(self) -> list[bytes]:
        """In the order of arrival."""
        return [request.body for request in self.requests]

    def ids(self) -> list[str]:
        """Of the messages, in the order of arrival."""
        return [request.headers["Scheduler-Message-Id"] for request in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One request."""
        at, body = time.time(), await request.read()
        headers = CIMultiDict(request.headers)
        self.requests.append(Received(request.method, request.path_qs, headers, body, at))
        try:
            await self.hold.wait()
        except asyncio.CancelledError:
            self.gone += 1
            raise
        if self.answer:
            return await self.answer(request)
        status = self.statuses.pop(0) if self.statuses else 200
        return web.Response(status=status, text="seen", headers=self.answer_headers)


@asynccontextmanager
async def receiving(port: int = 0) -> AsyncIterator[Receiver]:
    """Run a receiver on loopback; port 0: any free port."""
    receiver = Receiver()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    host, port = runner.addresses[0][:2]
    receiver.url = f"http://{host}:{port}/hook"
    try:
        yield receiver
    finally:
        receiver.hold.set()
        await runner.cleanup()
