"""A whole service in this process, with a fault proxy between it and its own store."""

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
PATIENCE: Final = 0.5  # timeout of the replicas' calls of the store, seconds
SETTINGS: Final = {
    "LEASE": "2s",
    "EGRESS_ALLOW": "127.0.0.0/8",
    "REQUEST_TIMEOUT": "20s",
    "SHUTDOWN_GRACE": "1s",
}


@dataclass
class Service:
    """A replica: its API, and the parts behind it."""

    http: aiohttp.ClientSession
    store: Store
    dispatcher: Dispatcher

    async def create(self, **fields: Any) -> int:
        """Create a message → the status, which is 201, 409 or a 503 with a valid body."""
        async with self.http.post("/messages", json=fields) as response:
            if response.status not in (201, 409):
                await told_unavailable(response)
            return response.status

    async def refusal(self, path: str = "/messages", **fields: Any) -> str:
        """Create a message, or read one, and expect a 503 → its code."""
        method = "POST" if fields else "GET"
        async with self.http.request(method, path, json=fields or None) as response:
            return await told_unavailable(response)

    async def health(self) -> tuple[int, str]:
        """The status of /health, and its report of the store."""
        async with self.http.get("/health") as response:
            return response.status, (await response.json())["redis"]

    async def state(self, message_id: str) -> str:
        """The state of a message; empty while the store does not answer."""
        async with self.http.get(f"/messages/{message_id}") as response:
            return str((await response.json()).get("state", ""))

    async def reach(self, message_id: str, state: str, timeout: float = 20) -> None:
        """Wait until the message has this state."""

        async def reached() -> bool:
            return await self.state(message_id) == state

        await wait_until(f"{message_id} {state}", reached, timeout)

    async def healed(self) -> None:
        """Wait until /health reports it."""

        async def healthy() -> bool:
            return await self.health() == (200, "connected")

        await wait_until("a healthy service", healthy, 20)


Logs = list[MutableMapping[str, Any]]
Serve = Callable[..., AbstractAsyncContextManager[Service]]


async def told_unavailable(response: aiohttp.ClientResponse) -> str:
    """Check a 503 with Retry-After → its code."""
    code: str = (await response.json(content_type=None))["code"]
    await problem(response, 503, code)
    assert int(response.headers["Retry-After"]) > 0
    return code


@pytest.fixture
def logs() -> Iterator[Logs]:
    """The log events of a test."""
    with capture_logs() as events:
        yield events


def events(logs: Logs, name: str) -> Logs:
    """The events with this name."""
    return [event for event in logs if event["event"] == name]


@pytest.fixture
async def upstream(tmp_path: Path) -> AsyncIterator[Valkey]:
    """The store's server, as durable as the embedded one."""
    async with valkey_server(tmp_path, "appendonly yes", "appendfsync always") as one:
        yield one


@pytest.fixture
async def admin(upstream: Valkey) -> AsyncIterator[Redis]:
    """A client without the proxy, for commands of the store's operator."""
    async with client(upstream.address) as redis:
        yield redis


@pytest.fixture
async def proxy(upstream: Valkey) -> AsyncIterator[FaultProxy]:
    """The proxy between the service and its store."""
    async with proxying(upstream.socket) as one:
        yield one


@asynccontextmanager
async def replica(address: str | None, folder: Path, **given: str) -> AsyncIterator[Service]:
    """A replica on the store at `address`, with the timeout PATIENCE; drained at the end.

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
