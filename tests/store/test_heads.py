"""News of a new head: subscribed, heard, lost and found again."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from scheduler_api.store import heads
from scheduler_api.store.heads import Heads
from tests.support.waiting import wait_until


@pytest.fixture
async def news(redis: Redis, prefix: str) -> Heads:
    return Heads(redis, f"{prefix}:wakeup")


@pytest.fixture
async def heard(news: Heads) -> AsyncIterator[list[str]]:
    """One entry for each call of the listener; it has subscribed already."""
    calls: list[str] = []
    task = asyncio.create_task(news.listen(lambda: calls.append("look")))
    await wait_until("it is subscribed", lambda: calls == ["look"])
    calls.clear()
    yield calls
    task.cancel()
    await asyncio.wait([task])


async def subscribers(redis: Redis, prefix: str) -> int:
    counts = await redis.pubsub_numsub(f"{prefix}:wakeup")
    return int(counts[0][1])


async def test_a_head_made_elsewhere_is_heard(redis: Redis, prefix: str, heard: list[str]) -> None:
    await redis.publish(f"{prefix}:wakeup", "1800000000000")
    await wait_until("it is heard", lambda: heard == ["look"])


async def test_a_head_made_here_is_heard_at_once(news: Heads, heard: list[str]) -> None:
    news.announce()
    assert heard == ["look"]


async def test_a_lost_subscription_is_made_again_and_looked_after(
    redis: Redis, prefix: str, heard: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "RECONNECT_AFTER", 0.01)
    assert await redis.client_kill_filter(_type="pubsub") == 1
    await wait_until("it is subscribed again", lambda: heard == ["look"])
    await redis.publish(f"{prefix}:wakeup", "1800000000000")
    await wait_until("it is heard", lambda: heard == ["look", "look"])


async def test_a_silent_subscription_is_asked_and_heard_on(
    redis: Redis, prefix: str, news: Heads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "PING_EVERY", 0.01)
    calls: list[str] = []
    task = asyncio.create_task(news.listen(lambda: calls.append("look")))
    before = await pings(redis)
    while await pings(redis) < before + 3:
        assert not task.done()
    await redis.publish(f"{prefix}:wakeup", "1800000000000")
    await wait_until("it is heard", lambda: calls == ["look", "look"])
    task.cancel()
    await asyncio.wait([task])


async def pings(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_ping", {"calls": 0})["calls"])


async def test_nobody_hears_after_the_listener_was_cancelled(
    redis: Redis, prefix: str, news: Heads
) -> None:
    calls: list[str] = []
    task = asyncio.create_task(news.listen(lambda: calls.append("look")))
    await wait_until("it is subscribed", lambda: calls == ["look"])
    task.cancel()
    await asyncio.wait([task])
    news.announce()
    assert calls == ["look"]

    async def gone() -> bool:
        return await subscribers(redis, prefix) == 0

    await wait_until("it is unsubscribed", gone)
