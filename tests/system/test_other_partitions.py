"""A process whose PARTITIONS does not match the data, which it could not check at its start."""

from pathlib import Path
from typing import Any

import aiohttp
from redis.asyncio import Redis

from scheduler_api.store.keys import Keys
from tests.support.external_store import ExternalStore
from tests.support.message_states import everything
from tests.support.valkey import client
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, Server, serving, started

MADE, WRONG = 2, 5  # partitions
CREATES = 20


async def answered(server: Server, *call: Any) -> tuple[int, Any]:
    """The status and the code of a call, as soon as the process has its store."""
    last: list[tuple[int, Any]] = []

    async def found() -> bool:
        try:
            status, body, _ = await server.ask(*call)
        except aiohttp.ClientError:
            return False
        last.append((status, body.get("code")))
        return last[-1] != (503, "store_unavailable")

    await wait_until("a response of the store", found, 30)
    return last[-1]


async def all_data(redis: Redis) -> dict[str, Any]:
    """The data of each partition of both processes."""
    return {
        key.decode(): content
        for partition in range(WRONG)
        for key, content in (await everything(redis, Keys("scheduler", partition))).items()
    }


async def test_promise_durable_before_201_though_partitions_differ_and_the_store_was_away(
    tmp_path: Path, external_store: ExternalStore
) -> None:
    later: dict[str, Any] = {"webhookUrl": "http://127.0.0.1:2/", "delay": "1d"}
    (tmp_path / "wrong").mkdir()
    async with serving(
        tmp_path, SERVE, None, PARTITIONS=str(MADE), **external_store.environ
    ) as right:
        await right.create(id="a", **later)
        await right.stop()
    await external_store.stop()
    async with started(
        tmp_path / "wrong", SERVE, None, PARTITIONS=str(WRONG), **external_store.environ
    ) as wrong:
        await wrong.event("store_unavailable_at_start")
        await external_store.start()
        async with client(external_store.address) as redis:
            before = await all_data(redis)
            calls: list[tuple[Any, ...]] = [
                ("POST", "/messages", {"id": f"m{number}", **later}) for number in range(CREATES)
            ]
            calls += [("POST", "/messages/batch", {"messages": [later] * CREATES})]
            calls += [("GET", "/messages"), ("GET", "/messages/a"), ("DELETE", "/messages/a")]
            calls += [("GET", "/destinations"), ("PUT", "/destinations/h", {"paused": True})]
            calls += [("GET", "/health/ready")]
            found = [await answered(wrong, *call) for call in calls]
            assert found == [(503, "other_partitions")] * len(calls)
            refused = await wrong.event("data_refused")
            assert f"set PARTITIONS={MADE}" in refused["reason"]
            status, health, _ = await wrong.ask("GET", "/health")
            assert (status, health["redis"], health["scheduler"]) == (503, "connected", "stopped")
            assert await all_data(redis) == before
        assert await wrong.stop() == 0
