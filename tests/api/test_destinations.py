"""/destinations: what is set, shown and refused."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.destination import Limits, Rate
from scheduler_api.domain.retry import Delivered, Failed
from scheduler_api.store.claims import Outcome
from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import attempt
from tests.support.problems import problem, wrong_paths

HOST = "n8n.example:5678"
IDLE = {
    "destination": HOST,
    "state": "open",
    "nextSend": None,
    "inFlight": 0,
    "waiting": 0,
    "connectFailures": 0,
    "attempts": 0,
    "successRate": None,
    "p50Ms": None,
    "p99Ms": None,
    "concurrency": 64,
    "rate": None,
    "paused": False,
    "default": False,
}


@pytest.fixture
async def live_store(redis: Redis, prefix: str) -> AsyncIterator[Store]:
    """A store of one partition: several partitions would divide the limits."""
    store = Store(redis, prefix=prefix)
    yield store
    await invariants.check(redis, store.keys[0], 64)


async def put(api: Api, host: str = HOST, **members: Any) -> dict[str, Any]:
    """The response to valid settings."""
    async with api.client.put(f"/destinations/{quote(host)}", json=members) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def show(api: Api, host: str = HOST) -> dict[str, Any]:
    async with api.client.get(f"/destinations/{quote(host)}") as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def listed(api: Api, **query: Any) -> dict[str, Any]:
    async with api.client.get("/destinations", params=query) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def create(store: Store, count: int, host: str) -> None:
    new = accepted(webhookUrl=f"http://{host}/")
    await asyncio.gather(
        *(store.messages.create(f"{host}-{number}", new) for number in range(count))
    )


async def test_put_returns_the_settings_that_apply(api: Api) -> None:
    assert await put(api) == IDLE
    asked: dict[str, Any] = {"concurrency": 8, "rate": "300/m", "paused": True}
    assert await put(api, **asked) == IDLE | asked | {"state": "paused"}
    assert await show(api) == IDLE | asked | {"state": "paused"}
    assert await put(api, rate="10/s", concurrency=None) == IDLE | {"rate": "10/s"}


async def test_delete_restores_the_defaults(api: Api) -> None:
    await put(api, concurrency=8)
    async with api.client.delete(f"/destinations/{HOST}") as response:
        assert response.status == 200
        assert await response.json() == IDLE | {"default": True}
    async with api.client.delete(f"/destinations/{HOST}") as response:
        found = await problem(response, 404, "destination_not_found")
        assert found["detail"] == f"{HOST} has no limits set; the defaults apply."
    async with api.client.get(f"/destinations/{HOST}") as response:
        await problem(response, 404, "destination_not_found")


async def test_put_normalizes_the_host_as_urls_are(api: Api, live_store: Store) -> None:
    await put(api, "N8N.Example:5678", concurrency=3)
    assert (await show(api))["concurrency"] == 3
    await put(api, "[0:0:0:0:0:0:0:1]:8443", concurrency=2)
    page = await live_store.destinations.list(10)
    assert [it.name for it in page.rows] == ["[::1]:8443", HOST]


async def test_put_and_delete_log_each_change_once(api: Api) -> None:
    with capture_logs() as logs:
        await put(api, concurrency=8, rate="10/s")
        async with api.client.delete(f"/destinations/{HOST}") as response:
            assert response.status == 200
    assert [{key: log[key] for key in log if key != "log_level"} for log in logs] == [
        {
            "event": "destination_limits_set",
            "destination": HOST,
            "concurrency": 8,
            "rate": "10/s",
            "paused": False,
        },
        {"event": "destination_limits_cleared", "destination": HOST},
    ]


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"concurrency": 0}, "/concurrency"),
        ({"concurrency": 10_001}, "/concurrency"),
        ({"concurrency": "8"}, "/concurrency"),
        ({"rate": "fast"}, "/rate"),
        ({"rate": 10}, "/rate"),
        ({"paused": "yes"}, "/paused"),
        ({"pasued": True}, "/pasued"),
    ],
)
async def test_put_names_a_wrong_field(api: Api, members: dict[str, Any], path: str) -> None:
    async with api.client.put(f"/destinations/{HOST}", json=members) as response:
        assert await wrong_paths(response) == [path]


@pytest.mark.parametrize("host", ["a b", "user@host", "host:0", "host:22", "1.2.3", "[::1", "☃"])
async def test_put_refuses_an_invalid_host_and_get_does_not_find_it(api: Api, host: str) -> None:
    path = f"/destinations/{quote(host)}"
    async with api.client.put(path, json={"concurrency": 1}) as response:
        assert await wrong_paths(response) == ["{host}"]
    for method in ("GET", "DELETE"):
        async with api.client.request(method, path) as response:
            await problem(response, 404, "destination_not_found")


async def test_put_refuses_a_body_that_is_not_json(api: Api) -> None:
    async with api.client.put(f"/destinations/{HOST}", data=b"{") as response:
        await problem(response, 400, "malformed_request")


async def test_list_shows_the_destination_with_the_most_load_first(
    api: Api, live_store: Store
) -> None:
    await put(api, "127.0.0.1:81", concurrency=1)
    await create(live_store, 3, "127.0.0.1:81")
    await create(live_store, 1, "127.0.0.1:82")
    await put(api)
    claim = await live_store.queues[0].claim(10)
    found = await listed(api)
    assert (found["count"], found["total"]) == (3, 3)
    shown = [(it["destination"], it["inFlight"], it["waiting"]) for it in found["destinations"]]
    assert shown == [("127.0.0.1:81", 1, 2), ("127.0.0.1:82", 1, 0), (HOST, 0, 0)]
    assert [it["state"] for it in found["destinations"]] == ["full", "open", "open"]
    assert [it["default"] for it in found["destinations"]] == [False, True, False]
    first = await listed(api, limit=1)
    assert (len(first["destinations"]), first["count"], first["total"]) == (1, 1, None)
    await live_store.queues[0].release(claim.messages)


async def test_list_pages_contain_every_destination_once(api: Api) -> None:
    hosts = [f"h{number}.example" for number in range(5)]
    for host in hosts:
        await put(api, host, concurrency=1)
    found, cursor = list[str](), ""
    while cursor is not None:
        page = await listed(api, limit=2, cursor=cursor)
        assert (page["total"], page["count"]) == (None, len(page["destinations"]))
        assert page["count"] <= 2
        found += [it["destination"] for it in page["destinations"]]
        cursor = page["nextCursor"]
    assert found == hosts
    page = await listed(api, limit=6)
    assert (page["count"], page["total"], page["nextCursor"]) == (5, 5, None)


async def test_get_finds_a_destination_by_every_spelling_of_its_host(api: Api) -> None:
    await put(api, "h.example:443", concurrency=3)
    for host in ("h.example", "h.example:80", "H.Example.", "h.example.:443"):
        shown = await show(api, host)
        assert (shown["destination"], shown["concurrency"]) == ("h.example", 3)
    async with api.client.delete("/destinations/h.example.") as response:
        assert response.status == 200
    async with api.client.get("/destinations/h.example:443") as response:
        await problem(response, 404, "destination_not_found")


@pytest.mark.parametrize("cursor", ["x", "MDow", "OTo5OnA"])
async def test_list_refuses_a_cursor_of_another_list(api: Api, cursor: str) -> None:
    async with api.client.get("/destinations", params={"cursor": cursor}) as response:
        assert await wrong_paths(response) == ["?cursor"]


async def test_get_shows_the_statistics_of_the_attempts(api: Api, live_store: Store) -> None:
    await create(live_store, 4, HOST)
    claim = await live_store.queues[0].claim(10)
    *good, bad = claim.messages
    settled = [Outcome(it, attempt(duration_ms=100), Delivered()) for it in good]
    settled.append(Outcome(bad, attempt(status=500, duration_ms=9_000), Failed()))
    assert all(await asyncio.gather(*map(live_store.queues[0].settle, settled)))
    shown = await show(api)
    assert (shown["attempts"], shown["successRate"]) == (4, 0.75)
    assert shown["p50Ms"] == pytest.approx(100, rel=0.12)
    assert shown["p99Ms"] == pytest.approx(9_000, rel=0.12)


async def test_list_refuses_a_limit_out_of_range(api: Api) -> None:
    async with api.client.get("/destinations", params={"limit": 0}) as response:
        assert await wrong_paths(response) == ["?limit"]


async def why(api: Api, message_id: str) -> str:
    async with api.client.get(f"/messages/{quote(message_id)}") as response:
        return str((await response.json())["why"])


async def test_why_says_that_the_destination_is_paused(api: Api, live_store: Store) -> None:
    await live_store.destinations.set_limit("127.0.0.1:81", Limits(paused=True))
    await create(live_store, 1, "127.0.0.1:81")
    await live_store.queues[0].claim(1)
    assert await why(api, "127.0.0.1:81-0") == "destination paused"


async def test_why_says_when_the_rate_allows_the_next_message(api: Api, live_store: Store) -> None:
    await live_store.destinations.set_limit("127.0.0.1:81", Limits(9, Rate(1, "h")))
    await create(live_store, 2, "127.0.0.1:81")
    (taken,) = (await live_store.queues[0].claim(2)).messages
    other = "127.0.0.1:81-1" if taken.id.endswith("0") else "127.0.0.1:81-0"
    shown = await show(api, "127.0.0.1:81")
    assert shown["state"] == "rate"
    expected = f"rate limited until {shown['nextSend']}"
    assert await why(api, other) == expected


async def test_why_says_that_the_destination_is_unreachable(api: Api, live_store: Store) -> None:
    await create(live_store, 6, "127.0.0.1:81")
    claim = await live_store.queues[0].claim(5)
    for claimed in claim.messages:
        attempt = Attempt(1, claimed.due_at, 1, None, "connect_error", None, 0)
        assert await live_store.queues[0].settle(Outcome(claimed, attempt, Failed()))
    await live_store.queues[0].claim(1)
    shown = await show(api, "127.0.0.1:81")
    assert (shown["state"], shown["connectFailures"], shown["waiting"]) == ("unreachable", 5, 1)
    [left] = (await live_store.messages.list(10, None)).rows
    assert await why(api, left.id) == f"destination unreachable, next probe at {shown['nextSend']}"
