"""The warning that the store is nearly full."""

from pathlib import Path

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.memory_warning import WARN_ABOVE, warnings
from tests.support import engines


async def test_warnings_name_the_use_of_a_nearly_full_store(own_redis: Redis) -> None:
    used = int((await own_redis.info("memory"))["used_memory"])
    await own_redis.config_set("maxmemory", used)
    (warning,) = await warnings(own_redis)
    assert " % of its maxmemory; when it is full, new messages get 503" in warning


async def test_warnings_are_empty_below_the_limit_and_without_one(own_redis: Redis) -> None:
    used = int((await own_redis.info("memory"))["used_memory"])
    for limit in (0, int(2 * used / WARN_ABOVE)):
        await own_redis.config_set("maxmemory", limit)
        assert await warnings(own_redis) == []


async def test_warnings_raise_store_unavailable_without_a_store(tmp_path: Path) -> None:
    async with engines.opened(f"unix://{tmp_path}/nobody") as client:
        with pytest.raises(StoreUnavailable):
            await warnings(client)
