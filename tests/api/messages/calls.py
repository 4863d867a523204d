"""Calls of /messages that tests make, and what they expect of each answer."""

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from scheduler_api.domain.attempt import Attempt
from scheduler_api.store.claims import Outcome
from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.support.factories import URL
from tests.support.message_states import Verdict, decided
from tests.support.partitions import queue_of

AT = "2046-04-15T02:41:45+00:00"


async def create(api: Api, **members: Any) -> dict[str, Any]:
    """What is answered to a create that goes well."""
    async with api.client.post("/messages", json={"webhookUrl": URL} | members) as response:
        assert response.status == 201, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def show(api: Api, message_id: str) -> dict[str, Any]:
    async with api.client.get(f"/messages/{quote(message_id, safe='')}") as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def page(api: Api, **query: Any) -> dict[str, Any]:
    async with api.client.get("/messages", params=query) as response:
        assert response.status == 200, await response.text()
        found: dict[str, Any] = await response.json()
        return found


async def tried(
    store: Store,
    verdict: Verdict,
    status: int | None = 503,
    error: str | None = None,
    *,
    message_id: str = "a",
    location: str | None = None,
) -> None:
    """The message, which is due, is claimed, tried and settled."""
    queue = queue_of(store, message_id)
    (claimed,) = (await queue.claim(1)).messages
    now = datetime.now(UTC).replace(microsecond=0)
    attempt = Attempt(claimed.attempts + 1, now, 12, status, error, "busy", 3, location)
    assert await queue.settle(Outcome(claimed, attempt, decided(verdict, timedelta(hours=1))))
