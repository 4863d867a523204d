"""Notifications of new first due messages: received, lost, and received again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from scheduler_api.store.connection import notifier as notifier_module
from scheduler_api.store.connection.client import open_client
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.keys import Keys
from tests.support import engines
from tests.support.waiting import wait_until


@pytest.fixture
async def notifier(redis: Redis, prefix: str) -> Notifier:
    return Notifier(redis, [Keys(prefix, partition).wakeup for partition in range(2)])


@pytest.fixture
async def calls_seen(notifier: Notifier) -> AsyncIterator[list[int]]:
    """The partitions that the listener was called with after its subscription to both."""
    calls: list[int] = []
    task = asyncio.create_task(notifier.listen(calls.append))
    await wait_until("the subscription", lambda: sorted(calls) == [0, 1])
    calls.clear()
    yield calls
    task.cancel()
    await asyncio.wait([task])


async def subscribers(redis: Redis, prefix: str) -> int:
    counts = await redis.pubsub_shardnumsub(Keys(prefix, 1).wakeup)
    return int(counts[0][1])


async def test_listen_reports_a_message_of_another_process(
    redis: Redis, prefix: str, calls_seen: list[int]
) -> None:
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("the call", lambda: calls_seen == [1])


async def test_notify_calls_the_listener_at_once(notifier: Notifier, calls_seen: list[int]) -> None:
    notifier.notify(1)
    assert calls_seen == [1]


async def test_listen_subscribes_again_and_reports_it_after_a_lost_connection(
    redis: Redis, prefix: str, calls_seen: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "RECONNECT_DELAY", 0.01)
    assert await redis.client_kill_filter(_type="pubsub", **engines.everywhere(redis))
    await wait_until("the new subscription", lambda: sorted(calls_seen) == [0, 1])
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("the call", lambda: sorted(calls_seen) == [0, 1, 1])


async def test_listen_pings_a_silent_subscription_and_still_receives(
    redis: Redis, prefix: str, notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "PING_INTERVAL", 0.01)
    calls: list[int] = []
    task = asyncio.create_task(notifier.listen(calls.append))
    before = await pings(redis)
    while await pings(redis) < before + 3:
        assert not task.done()
    await redis.spublish(Keys(prefix, 1).wakeup, "1800000000000")
    await wait_until("the call", lambda: sorted(calls) == [0, 1, 1])
    task.cancel()
    await asyncio.wait([task])


async def pings(redis: Redis) -> int:
    """Number of PINGs that all servers received, from any client."""
    found: Any = await redis.info("commandstats", **engines.everywhere(redis))
    servers = list(found.values()) if engines.everywhere(redis) else [found]
    return sum(stats.get("cmdstat_ping", {"calls": 0})["calls"] for stats in servers)


async def test_listen_ends_its_subscription_when_cancelled(
    redis: Redis, prefix: str, notifier: Notifier
) -> None:
    calls: list[int] = []
    task = asyncio.create_task(notifier.listen(calls.append))
    await wait_until("the subscription", lambda: sorted(calls) == [0, 1])
    task.cancel()
    await asyncio.wait([task])
    notifier.notify(1)
    assert sorted(calls) == [0, 1]

    async def gone() -> bool:
        return await subscribers(redis, prefix) == 0

    await wait_until("the end of the subscription", gone)


async def test_listen_follows_a_partition_to_another_node_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifier_module, "RECONNECT_DELAY", 0.01)
    channels = [Keys("moves", partition).wakeup for partition in range(3)]
    async with (
        engines.cluster(tmp_path) as nodes,
        aclosing(open_client(engines.address("redis+cluster", nodes))) as client,
        listening(Notifier(client, channels)) as calls,
    ):
        await wait_until("the subscription", lambda: sorted(calls) == [0, 1, 2])
        slot = key_slot(channels[1].encode())
        [owner] = [node for node in nodes if await serves(node, slot)]
        other = nodes[nodes.index(owner) - 1]
        name = await other.ask("CLUSTER", "MYID")
        for node in (other, owner):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)
        await client.exists(channels[1])  # any command shows the move to the client
        await wait_until("the subscription there", lambda: calls.count(1) == 2)
        await other.ask("SPUBLISH", channels[1], "1800000000000")
        await wait_until("the call from there", lambda: calls.count(1) == 3)
    assert (calls.count(0), calls.count(2)) == (1, 1)


@asynccontextmanager
async def listening(notifier: Notifier) -> AsyncIterator[list[int]]:
    """The partitions that a listener is called with."""
    calls: list[int] = []
    task = asyncio.create_task(notifier.listen(calls.append))
    try:
        yield calls
    finally:
        task.cancel()
        await asyncio.wait([task])


async def serves(node: engines.Server, slot: int) -> bool:
    """Whether the node owns the slot."""
    ranges: Any = await node.ask("CLUSTER", "SLOTS")
    mine = await node.ask("CLUSTER", "MYID")
    return any(begin <= slot <= end and first[2] == mine for begin, end, first, *_ in ranges)
