"""What every test may ask for: the real store, a clock for it, a real receiver."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
import structlog
import uvloop
from redis.asyncio import Redis

from scheduler_api.store.connection.client import close
from scheduler_api.store.keys import Keys
from scheduler_api.store.store import Store
from scheduler_api.telemetry.logging import UVICORN_LOGGERS
from tests.support import engines, invariants
from tests.support.command_line import Done, Run, run_in
from tests.support.receiver import Receiver, receiving
from tests.support.store_clock import Clock, clock_lib
from tests.support.stream_server import end_transports

CONCURRENCY = 4  # a destination's, in tests of the store
PARTITIONS = engines.PARTITIONS  # of `live_store`
NOW = 1_800_000_000_000  # ms; what the tests' clock shows at first


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the service runs on: its timers are others than those of asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ENGINE, what speaks to that engine is all that runs."""
    if engines.CHOSEN == "embedded":
        return
    left_out = [item for item in items if not engines.concerns(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


@pytest.fixture(scope="session", autouse=True)
async def closed_transports() -> AsyncIterator[None]:
    """Nothing is open when the loop closes next: it would fail, and not say why."""
    yield
    if left_open := await end_transports():
        pytest.fail("\n".join(["left open, perhaps by an earlier test:", *left_open]))


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine reaches a test."""
    for name in ("API_TOKEN", "API_PORT", "API_HOST", "REDIS_URL", "REDIS_HOST", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A test that ran the service in this process leaves no level: records that are caught stay."""
    root = logging.getLogger()
    chosen, handlers, level = structlog.get_config(), root.handlers[:], root.level
    yield
    structlog.configure(**chosen)
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in UVICORN_LOGGERS:
        logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
async def valkey(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Address of the store that ENGINE names, one for all tests of a process."""
    folder = tmp_path_factory.mktemp("store")
    async with engines.running(engines.CHOSEN, folder, failed_over=True) as address:
        yield address


@pytest.fixture(scope="session")
def socket(valkey: str) -> Path:
    """Where that store listens; not for a cluster or a sentinel, see engines.concerns."""
    return Path(valkey.removeprefix("unix://"))


@pytest.fixture
async def redis(valkey: str) -> AsyncIterator[Redis]:
    """A client as the product opens it, but patient: a busy machine may stall for seconds."""
    client = engines.open_with_timeout(valkey, 10.0)
    await client.initialize()
    yield cast("Redis", client)  # a cluster's answers the same calls
    await close(client)


@pytest.fixture
def prefix() -> str:
    """Of this test's keys."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture
async def clock(redis: Redis, prefix: str) -> Clock:
    """The clock of `store`, standing still until it is moved."""
    clock = Clock(redis, f"{Keys(prefix).base}clock")
    await clock.set(NOW)
    return clock


@pytest.fixture
async def store(redis: Redis, prefix: str, clock: Clock) -> AsyncIterator[Store]:
    """The store of this test, on the test's clock; its invariants hold in the end."""
    keys = Keys(prefix)
    yield Store(redis, prefix=prefix, concurrency=CONCURRENCY, libs=clock_lib(clock.key))
    await invariants.check(redis, keys, CONCURRENCY)


@pytest.fixture
async def live_store(redis: Redis, prefix: str) -> AsyncIterator[Store]:
    """The store of this test, on the server's own clock."""
    store = Store(
        redis,
        prefix=prefix,
        partitions=PARTITIONS,
        lease=timedelta(seconds=5),
        concurrency=64 * PARTITIONS,
    )
    yield store
    for keys in store.keys:
        await invariants.check(redis, keys, 64)


@pytest.fixture
def run(valkey: str, prefix: str, tmp_path: Path) -> Run:
    """Runs a command over the store of this test."""
    given = {"REDIS_URL": valkey, "REDIS_PREFIX": prefix, "DATA_DIR": str(tmp_path / "data")}
    given |= {"EGRESS_ALLOW": "127.0.0.1", "API_TOKEN": "t", "PARTITIONS": str(PARTITIONS)}

    async def command(*arguments: str, stdin: bytes = b"") -> Done:
        return await run_in(tmp_path, *arguments, stdin=stdin, **given)

    return command


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Takes webhooks."""
    async with receiving() as one:
        yield one
