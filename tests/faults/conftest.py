"""A whole service in this process, with a proxy between it and a store of the test's own."""

from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.api.app import create_app
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.server import compose
from scheduler_api.server.token_file import Token
from scheduler_api.settings import load
from scheduler_api.store.store import Store
from tests.api.conftest import serving
from tests.support.fault_proxy import FaultProxy, proxying
from tests.support.problems import problem
from tests.support.valkey import Valkey, client, valkey_server
from tests.support.waiting import wait_until

TOKEN: Final = "token-of-the-fault-tests"
PATIENCE: Final = 0.5  # seconds that a replica of these tests waits for its store
SETTINGS: Final = {
    "LEASE": "2s",
    "EGRESS_ALLOW": "127.0.0.0/8",
    "REQUEST_TIMEOUT": "20s",
    "SHUTDOWN_GRACE": "1s",
}


@dataclass
class Service:
    """A replica: its API, as a caller meets it, and what is behind that."""

    http: aiohttp.ClientSession
    store: Store
    dispatcher: Dispatcher

    async def create(self, **fields: Any) -> int:
        """Create a message → the status; anything but 201 and 409 must be a truthful 503."""
        async with self.http.post("/messages", json=fields) as response:
            if response.status not in (201, 409):
                await told_unavailable(response)
            return response.status

    async def refusal(self, path: str = "/messages", **fields: Any) -> str:
        """The code of the 503 that a create, or a read when nothing is sent, must get."""
        method = "POST" if fields else "GET"
        async with self.http.request(method, path, json=fields or None) as response:
            return await told_unavailable(response)

    async def health(self) -> tuple[int, str]:
        """The status of /health, and what it says of the store."""
        async with self.http.get("/health") as response:
            return response.status, (await response.json())["redis"]

    async def state(self, message_id: str) -> str:
        """Of a message; empty while nobody can tell."""
        async with self.http.get(f"/messages/{message_id}") as response:
            return str((await response.json()).get("state", ""))

    async def reach(self, message_id: str, state: str, timeout: float = 20) -> None:
        """Wait until the message is in that state."""

        async def reached() -> bool:
            return await self.state(message_id) == state

        await wait_until(f"{message_id} {state}", reached, timeout)

    async def healed(self) -> None:
        """Wait until it says so itself."""

        async def healthy() -> bool:
            return await self.health() == (200, "connected")

        await wait_until("a healthy service", healthy, 20)


Logs = list[MutableMapping[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[Service]]


async def told_unavailable(response: aiohttp.ClientResponse) -> str:
    """A 503 that says when to come back → its code."""
    code: str = (await response.json(content_type=None))["code"]
    await problem(response, 503, code)
    assert int(response.headers["Retry-After"]) > 0
    return code


@pytest.fixture
def logs() -> Iterator[Logs]:
    """What is logged meanwhile."""
    with capture_logs() as events:
        yield events


def events(logs: Logs, name: str) -> Logs:
    """Those of that name."""
    return [event for event in logs if event["event"] == name]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Valkey]:
    """The store's server: durable, as the embedded one."""
    async with valkey_server(tmp_path, "appendonly yes", "appendfsync always") as one:
        yield one


@pytest.fixture
async def admin(upstream: Valkey) -> AsyncIterator[Redis]:
    """A client of the server itself, for what its operator does."""
    async with client(upstream.address) as redis:
        yield redis


@pytest.fixture
async def proxy(upstream: Valkey) -> AsyncIterator[FaultProxy]:
    """Between the service and the server."""
    async with proxying(upstream.socket) as one:
        yield one


@asynccontextmanager
async def replica(address: str | None, folder: Path, **given: str) -> AsyncIterator[Service]:
    """One over the store at `address`, which it gives up after PATIENCE; drained in the end.

    Without an address: over its own embedded store in `folder`.
    """
    outside = {"REDIS_URL": f"{address}?socket_timeout={PATIENCE}"} if address else {}
    environ = SETTINGS | {"DATA_DIR": str(folder)} | outside | given
    async with compose.open_service(
        load(environ=environ, dotenv=None), Token(TOKEN, created=False)
    ) as service:
        app = create_app()
        app.state.context = service.context
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            serving(app) as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as http,
        ):
            yield Service(http, service.context.store, service.dispatcher)


@pytest.fixture
async def service(proxy: FaultProxy, tmp_path: Path) -> AsyncIterator[Service]:
    """A replica behind the proxy."""
    async with replica(proxy.address, tmp_path) as one:
        yield one
