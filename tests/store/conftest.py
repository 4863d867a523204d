"""A server of a test's own, for tests that stop it, fill it or hold it up."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scheduler_api.store.embedded import EmbeddedStore
from scheduler_api.store.scripts import Scripts
from scheduler_api.store.store import Store, connect
from tests.support.clock import Clock, prelude


@pytest.fixture
def scripts(redis: Redis, store: Store, clock: Clock) -> Scripts:
    """The scripts of `store`, to be run with arguments that its methods never give."""
    return Scripts(redis, store.keys, prelude(clock.key))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedStore]:
    """Running, until the test stops it."""
    server = EmbeddedStore(tmp_path, fsync="no")
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def own_redis(server: EmbeddedStore) -> AsyncIterator[Redis]:
    """A client of `server`, as the product opens it."""
    client = connect(f"unix://{server.socket}")
    yield client
    await client.aclose()
    await client.connection_pool.disconnect()


@pytest.fixture
def own_store(own_redis: Redis) -> Store:
    """The store on `server`, on the server's clock."""
    return Store(own_redis)
