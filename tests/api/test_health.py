"""/health, /health/live, /health/ready: the format of the original, and the real state."""

import re
from typing import Any

from redis.asyncio import Redis

from scheduler_api import __version__
from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.support.factories import URL
from tests.support.problems import problem


async def health(api: Api) -> tuple[int, dict[str, Any], str | None]:
    async with api.client.get("/health") as response:
        body: dict[str, Any] = await response.json()
        assert re.fullmatch(r"(\d+[dhm] )*\d+s", body.pop("uptime"))
        assert body.pop("version") == __version__
        assert body.pop("warnings") == []
        return response.status, body, response.headers.get("Retry-After")


async def test_health_counts_the_pending_messages(api: Api) -> None:
    async with api.client.post("/messages", json={"webhookUrl": URL, "delay": 60}):
        pass
    body = {"status": "healthy", "redis": "connected", "scheduler": "running", "scheduled_jobs": 1}
    assert await health(api) == (200, body, None)


STOPPED = {
    "status": "unhealthy",
    "redis": "connected",
    "scheduler": "stopped",
    "scheduled_jobs": 0,
}


async def test_health_reports_a_stopped_scheduler(api: Api) -> None:
    api.scheduler.running = False
    assert await health(api) == (503, STOPPED, "1")


async def test_health_reports_data_of_a_newer_version(
    api: Api, live_store: Store, redis: Redis
) -> None:
    for keys in live_store.keys:
        await redis.hset(keys.meta, "schema", "999")
    assert await health(api) == (503, STOPPED, "1")
    async with api.client.get("/health/ready") as response:
        found = await problem(response, 503, "schema_too_new")
    assert "start the newer version" in found["detail"]


async def test_health_reports_an_unreachable_store(without_store: Api) -> None:
    body = {
        "status": "unhealthy",
        "redis": "disconnected",
        "scheduler": "running",
        "scheduled_jobs": 0,
    }
    assert await health(without_store) == (503, body, "1")


async def test_health_lists_settings_of_the_store_that_may_lose_messages(
    live_store: Store, api: Api
) -> None:
    await live_store.check()
    async with api.client.get("/health") as response:
        body = await response.json()
    assert response.status == 200
    (warning,) = body["warnings"]
    assert warning.startswith("appendfsync is no: ")


async def test_live_answers_without_store_and_scheduler(without_store: Api) -> None:
    without_store.scheduler.running = False
    async with without_store.client.get("/health/live") as response:
        assert (response.status, await response.json()) == (200, {"status": "alive"})


async def test_ready_answers_200_if_store_and_scheduler_work(api: Api) -> None:
    async with api.client.get("/health/ready") as response:
        assert (response.status, await response.json()) == (200, {"status": "ready"})


async def test_ready_answers_503_while_the_scheduler_is_stopped(api: Api) -> None:
    api.scheduler.running = False
    async with api.client.get("/health/ready") as response:
        found = await problem(response, 503, "unavailable")
        assert "scheduler" in found["detail"]
        assert response.headers["Retry-After"] == "1"


async def test_ready_answers_503_without_a_store(without_store: Api) -> None:
    async with without_store.client.get("/health/ready") as response:
        await problem(response, 503, "store_unavailable")
