"""A server of a test's own, for tests that stop it, fill it or hold it up."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.connection.notifier import node_subscription
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.support import engines
from tests.support.store_clock import Clock, clock_lib
from tests.support.waiting import wait_until

Published = Callable[[], Awaitable[list[int]]]
Replica = Callable[..., Store]


@pytest.fixture
def scripts(redis: Redis, store: Store, clock: Clock) -> Scripts:
    """The scripts of `store`, to be run with arguments that its methods never give."""
    return Scripts(redis, store.keys[0], clock_lib(clock.key))


@pytest.fixture
def replica(redis: Redis, prefix: str, clock: Clock) -> Replica:
    """Opens the store of this test as another process would."""

    def replica(client: Redis = redis, **options: Any) -> Store:
        return Store(
            client,
            prefix=prefix,
            libs=clock_lib(clock.key),
            **{"concurrency": CONCURRENCY} | options,
        )

    return replica


@pytest.fixture
async def published(redis: Redis, store: Store) -> AsyncIterator[Published]:
    """Returns what was published since its last call."""
    async with redis.pubsub() as subscription:
        await subscription.ssubscribe(store.keys[0].wakeup)
        own = node_subscription(subscription)

        async def published() -> list[int]:
            await redis.spublish(store.keys[0].wakeup, "end")
            found: list[bytes] = []
            while found[-1:] != [b"end"]:
                message = await own.get_message(ignore_subscribe_messages=True, timeout=1)
                found += [message["data"]] if message else []
            return [int(each) for each in found[:-1]]

        yield published


@pytest.fixture
async def wakes(store: Store) -> AsyncIterator[list[str]]:
    """One entry for each notification to the dispatcher of `store`."""
    wakes: list[str] = []
    task = asyncio.create_task(store.notifier.listen(lambda _: wakes.append("wake")))
    await wait_until("it is subscribed", lambda: wakes == ["wake"])
    yield wakes
    task.cancel()
    await asyncio.wait([task])


@pytest.fixture
async def impatient(valkey: str) -> AsyncIterator[Redis]:
    """A client that soon gives up waiting for a reply, unlike every other client of the test."""
    client = cast("Redis", engines.open_with_timeout(valkey, 1.0))
    yield client
    await close(client)


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
    await close(client)


@pytest.fixture
def own_store(own_redis: Redis) -> Store:
    """The store on `server`, on the server's clock."""
    return Store(own_redis)


@pytest.fixture
async def absent(tmp_path: Path) -> AsyncIterator[Store]:
    """A store at an address where no server is."""
    client = connect(f"unix://{tmp_path}/nobody")
    yield Store(client)
    await client.aclose()
