"""News of a new head: subscribed, heard, lost and found again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from scheduler_api.store.connection import notifier
from scheduler_api.store.connection.client import open_client
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.keys import Keys
from tests.support import engines
from tests.support.waiting import wait_until


@pytest.fixture
async def news(redis: Redis, prefix: str) -> Notifier:
    return Notifier(redis, [Keys(prefix, partition).wakeup for partition in range(2)])


@pytest.fixture
async def heard(news: Notifier) -> AsyncIterator[list[int]]:
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


async def test_a_head_made_here_is_heard_at_once(news: Notifier, heard: list[int]) -> None:
    news.notify(1)
    assert heard == [1]


async def test_a_lost_subscription_is_made_again_and_looked_after(
    redis: Redis, prefix: str, heard: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "RECONNECT_DELAY", 0.01)
    assert await redis.client_kill_filter(_type="pubsub", **engines.everywhere(redis))
    await wait_until("it is subscribed again", lambda: sorted(heard) == [0, 1])
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("it is heard", lambda: sorted(heard) == [0, 1, 1])


async def test_a_silent_subscription_is_asked_and_heard_on(
    redis: Redis, prefix: str, news: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "PING_INTERVAL", 0.01)
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
    redis: Redis, prefix: str, news: Notifier
) -> None:
    calls: list[int] = []
    task = asyncio.create_task(news.listen(calls.append))
    await wait_until("it is subscribed", lambda: sorted(calls) == [0, 1])
    task.cancel()
    await asyncio.wait([task])
    news.notify(1)
    assert sorted(calls) == [0, 1]

    async def gone() -> bool:
        return await subscribers(redis, prefix) == 0

    await wait_until("it is unsubscribed", gone)


async def test_on_a_cluster_a_partition_that_moves_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier, "RECONNECT_DELAY", 0.01)
    channels = [Keys("moves", partition).wakeup for partition in range(3)]
    async with (
        engines.cluster(tmp_path) as nodes,
        aclosing(open_client(engines.address("redis+cluster", nodes))) as client,
        listening(Notifier(client, channels)) as calls,
    ):
        await wait_until("it is subscribed", lambda: sorted(calls) == [0, 1, 2])
        slot = key_slot(channels[1].encode())
        [owner] = [node for node in nodes if await serves(node, slot)]
        other = nodes[nodes.index(owner) - 1]
        name = await other.ask("CLUSTER", "MYID")
        for node in (other, owner):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
        await client.exists(channels[1])  # as any look at the partition: the client learns of it
        await wait_until("it is subscribed there", lambda: calls.count(1) == 2)
        await other.ask("SPUBLISH", channels[1], "1800000000000")
        await wait_until("it is heard from there", lambda: calls.count(1) == 3)
    assert (calls.count(0), calls.count(2)) == (1, 1)


@asynccontextmanager
async def listening(news: Notifier) -> AsyncIterator[list[int]]:
    """The partitions that a listener is called with."""
    calls: list[int] = []
    task = asyncio.create_task(news.listen(calls.append))
    try:
        yield calls
    finally:
        task.cancel()
        await asyncio.wait([task])


async def serves(node: engines.Server, slot: int) -> bool:
    """Whether a slot is the node's own."""
    ranges: Any = await node.ask("CLUSTER", "SLOTS")
    mine = await node.ask("CLUSTER", "MYID")
    return any(begin <= slot <= end and first[2] == mine for begin, end, first, *_ in ranges)
