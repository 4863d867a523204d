"""Messages past their retention are deleted."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler_api.delivery.upkeep import purger
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store
from tests.delivery.upkeep.conftest import running
from tests.support.waiting import wait_until


async def test_purge_deletes_in_batches_until_none_is_left(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(CLAIM_BATCH + 1):
        await redis.hset(f"{store.keys[0].base}payloads", f"m{n}", "x")
        await redis.zadd(f"{store.keys[0].base}delivered", {f"m{n}": 1})
    monkeypatch.setattr(purger, "PURGE_INTERVAL", 0.001)

    async def none_is_left() -> bool:
        return not await redis.zcard(f"{store.keys[0].base}delivered")

    async with running(asyncio.create_task(purger.purge(store.queues[0]))):
        await wait_until("no delivered message", none_is_left)
