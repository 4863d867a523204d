"""Between a replica and its store: connections that die, hang, slow down, or lose a reply."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.store import Store, connect
from tests.support.faults import FaultProxy, proxying


@pytest.fixture
async def proxy(valkey: str) -> AsyncIterator[FaultProxy]:
    """In front of the tests' server."""
    async with proxying(Path(valkey.removeprefix("unix://"))) as proxy:
        yield proxy


@pytest.fixture
async def far_store(proxy: FaultProxy, prefix: str) -> AsyncIterator[Store]:
    """The store of this test, through the proxy."""
    redis = connect(proxy.address)
    yield Store(redis, prefix=prefix)
    await redis.aclose()
    await redis.connection_pool.disconnect()


async def test_a_connection_that_was_reset_in_the_pool_is_an_unavailable_store(
    proxy: FaultProxy, far_store: Store
) -> None:
    """F27. On uvloop a write to it is a RuntimeError, and was answered as a mistake of ours."""
    witness, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
    assert await far_store.messages.count() == 0
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        await witness.read()
    with pytest.raises(StoreUnavailable):
        await far_store.messages.count()
    assert await far_store.messages.count() == 0
