"""Fixtures of the API: the application over a real store, its server on loopback and a client."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from scheduler_api.api.app import create_app
from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.api.endpoint import Context
from scheduler_api.byte_budget import ByteBudget
from scheduler_api.server.protocol import HttpProtocol
from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.store import Store
from tests.support.factories import LOOPBACK
from tests.support.waiting import wait_until

TOKEN = "the-token-of-the-tests"
MAX_BODY = 1024 * 1024  # bytes
BODIES = 4 * MAX_BODY  # bytes, of all requests together


@dataclass
class Scheduler:
    """Replaces the dispatcher: the test sets whether it runs."""

    running: bool = True


@dataclass
class Api:
    """A server of the application, and a client with the token."""

    app: Starlette
    server: uvicorn.Server
    port: int
    client: aiohttp.ClientSession
    scheduler: Scheduler

    async def raw(self, request: bytes) -> bytes:
        """Send these bytes and return all bytes until the server closes the connection."""
        return await raw(self.port, request)


async def raw(port: int, request: bytes) -> bytes:
    """Send bytes to a port and return all bytes until the other side closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await asyncio.wait_for(reader.read(), 5)
    finally:
        writer.close()


def application(
    store: Store, scheduler: Scheduler, token: str = TOKEN, **options: Any
) -> Starlette:
    """The application with its context."""
    app = create_app(**options)
    app.state.context = Context(
        store=store,
        credentials=(BearerToken(token),),
        refusal=LOOPBACK.refusal_of_literal,
        default_zone="UTC",
        max_body=MAX_BODY,
        bodies=ByteBudget(BODIES),
        is_running=lambda: scheduler.running,
    )
    return app


@asynccontextmanager
async def served(
    app: ASGIApp, http: str | type[asyncio.Protocol] = HttpProtocol, **options: Any
) -> AsyncIterator[tuple[uvicorn.Server, int]]:
    """A server of `app` and its port on loopback."""
    config = uvicorn.Config(
        app, http=http, ws="none", lifespan="off", log_config=None, access_log=False, **options
    )
    # The steps of `Server.serve` without its loop, signals and pauses, which take most time.
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        await server.startup([sock])
        try:
            yield server, int(sock.getsockname()[1])
        finally:
            for listener in server.servers:
                listener.close()
            connections = server.server_state.connections
            for connection in list(connections):
                connection.shutdown()
            await wait_until("the last connection is closed", lambda: not connections)


@asynccontextmanager
async def serving(
    app: ASGIApp, http: str | type[asyncio.Protocol] = HttpProtocol, **options: Any
) -> AsyncIterator[int]:
    """The port of a server of `app` on loopback."""
    async with served(app, http, **options) as (_, port):
        yield port


@asynccontextmanager
async def opened(app: Starlette, scheduler: Scheduler, token: str = TOKEN) -> AsyncIterator[Api]:
    """A server of `app` and a client for it."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        served(app) as (server, port),
        aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as client,
    ):
        yield Api(app, server, port, client, scheduler)


@pytest.fixture
async def api(live_store: Store) -> AsyncIterator[Api]:
    """The API over the store of the test."""
    scheduler = Scheduler()
    async with opened(application(live_store, scheduler), scheduler) as one:
        yield one


@pytest.fixture
async def without_store() -> AsyncIterator[Api]:
    """The API with a store that cannot be reached: nothing listens at its address."""
    with socket.socket() as closed:  # bound but not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        redis = connect(f"redis://127.0.0.1:{closed.getsockname()[1]}")
        scheduler = Scheduler()
        async with opened(application(Store(redis), scheduler), scheduler) as one:
            yield one
        await close(redis)
