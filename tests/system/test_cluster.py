"""Two processes over a cluster of three nodes: one service for the messages of all nodes."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import pytest

from scheduler_api.store.keys import partition_of
from tests.support import engines
from tests.support.configured_store import DURABLE
from tests.support.receiver import Receiver
from tests.system.processes import SERVE, Server, serving
from tests.system.traffic import missing, traffic

PARTITIONS = 16


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[engines.Server]]:
    """Three durable nodes, each with a third of the slots."""
    async with engines.cluster(tmp_path, *DURABLE, "cluster-node-timeout 2000") as nodes:
        yield nodes


@asynccontextmanager
async def replicas(folder: Path, address: str) -> AsyncIterator[list[Server]]:
    """Two processes of the service over that store."""
    given = {"REDIS_URL": address, "LEASE": "3s", "PARTITIONS": str(PARTITIONS)}
    for name in "ab":
        (folder / name).mkdir()
    async with (
        serving(folder / "a", SERVE, None, **given) as a,
        serving(folder / "b", SERVE, None, **given) as b,
    ):
        yield [a, b]


async def test_service_lists_the_messages_of_all_nodes_and_sends_each_once(
    tmp_path: Path, nodes: list[engines.Server], receiver: Receiver
) -> None:
    address = engines.address("redis+cluster", nodes)
    async with replicas(tmp_path, address) as (a, b):
        ids = [f"m{number:03}" for number in range(100)]
        assert len({partition_of(one.encode(), PARTITIONS) for one in ids}) == PARTITIONS
        for number, message_id in enumerate(ids):
            server = (a, b)[number % 2]
            await server.create(id=message_id, webhookUrl=receiver.url, delay=3600 + number)
        assert await listed(b, limit=7) == ids
        for message_id in ids[::10]:
            assert (await a.ask("DELETE", f"/messages/{message_id}"))[0] == 200
        assert await listed(a, limit=100) == [one for one in ids if one not in ids[::10]]
        for number in range(60):
            await a.create(id=f"s{number}", webhookUrl=receiver.url, delay=0.5)
        assert await missing([f"s{number}" for number in range(60)], receiver) == set()
        assert [await server.stop() for server in (a, b)] == [0, 0]
    assert set(Counter(receiver.ids()).values()) == {1}
    for request in receiver.requests:
        at = datetime.fromisoformat(request.headers["Scheduler-Scheduled-For"])
        assert request.at >= at.timestamp(), "never early"


async def listed(server: Server, limit: int) -> list[str]:
    """Every pending id, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        query = {"limit": limit} | ({"cursor": cursor} if cursor else {})
        _, page, _ = await server.ask("GET", "/messages", params=query)
        ids += [row["messageId"] for row in page["scheduledJobs"]]
        cursor = page["nextCursor"]
        if cursor is None:
            return ids


async def test_service_loses_no_acknowledged_message_when_a_node_is_killed(
    tmp_path: Path, nodes: list[engines.Server], receiver: Receiver
) -> None:
    address = engines.address("redis+cluster", nodes)
    async with replicas(tmp_path, address) as servers:
        async with traffic(servers, receiver) as found:
            await found.more(100)
            await nodes[1].kill()
            await found.more(20)  # the partitions of the other nodes continue
            await nodes[1].start()
            await found.more(100)
        lost = await missing(found.acknowledged, receiver)
    print(f"{len(found.acknowledged)} acknowledged, {found.refused} refused, {len(lost)} lost")
    assert found.refused > 0
    assert lost == set()
