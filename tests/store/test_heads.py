"""News of a new head: subscribed, heard, lost and found again."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.store import heads
from scheduler_api.store.heads import Heads
from scheduler_api.store.keys import Keys
from tests.support import engines
from tests.support.waiting import wait_until


@pytest.fixture
async def news(redis: Redis, prefix: str) -> Heads:
    return Heads(redis, [Keys(prefix, partition).wakeup for partition in range(2)])


@pytest.fixture
async def heard(news: Heads) -> AsyncIterator[list[int]]:
    """The partitions that the listener was called with; it has subscribed to both already."""
    calls: list[int] = []
    task = asyncio.create_task(news.listen(calls.append))
    await wait_until("it is subscribed", lambda: sorted(calls) == [0, 1])
    calls.clear()
    yield calls
    task.cancel()
    await asyncio.wait([task])


async def subscribers(redis: Redis, prefix: str) -> int:
    counts = await redis.pubsub_shardnumsub(Keys(prefix, 1).wakeup)
    return int(counts[0][1])


async def test_a_head_made_elsewhere_is_heard(redis: Redis, prefix: str, heard: list[int]) -> None:
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("it is heard", lambda: heard == [1])


async def test_a_head_made_here_is_heard_at_once(news: Heads, heard: list[int]) -> None:
    news.announce(1)
    assert heard == [1]


async def test_a_lost_subscription_is_made_again_and_looked_after(
    redis: Redis, prefix: str, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "RECONNECT_AFTER", 0.01)
    assert await redis.client_kill_filter(_type="pubsub", **engines.everywhere(redis))
    await wait_until("it is subscribed again", lambda: sorted(heard) == [0, 1])
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("it is heard", lambda: sorted(heard) == [0, 1, 1])


async def test_a_silent_subscription_is_asked_and_heard_on(
    redis: Redis, prefix: str, news: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "PING_EVERY", 0.01)
    calls: list[int] = []
    task = asyncio.create_task(news.listen(calls.append))
    before = await pings(redis)
    while await pings(redis) < before + 3:
        assert not task.done()
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("it is heard", lambda: sorted(calls) == [0, 1, 1])
    task.cancel()
    await asyncio.wait([task])


async def pings(redis: Redis) -> int:
    """How often any server was asked, by whomever."""
    found: Any = await redis.info("commandstats", **engines.everywhere(redis))
    servers = list(found.values()) if engines.everywhere(redis) else [found]
    return sum(stats.get("cmdstat_ping", {"calls": 0})["calls"] for stats in servers)


async def test_nobody_hears_after_the_listener_was_cancelled(
    redis: Redis, prefix: str, news: Heads
) -> None:
    calls: list[int] = []
    task = asyncio.create_task(news.listen(calls.append))
    await wait_until("it is subscribed", lambda: sorted(calls) == [0, 1])
    task.cancel()
    await asyncio.wait([task])
    news.announce(1)
    assert sorted(calls) == [0, 1]

    async def gone() -> bool:
        return await subscribers(redis, prefix) == 0

    await wait_until("it is unsubscribed", gone)
