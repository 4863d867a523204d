"""POST /messages: what is stored, and what is refused."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.api.messages.calls import AT, create, page, show, tried
from tests.support.factories import URL
from tests.support.partitions import keys_of, queue_of
from tests.support.problems import problem

ODD_IDS = ["a b", "é", "?", "#", "%", "%2F", "a+b", "a&b=c", "😀", "...", "'\"", "\\", "~", "a:b"]


async def test_create_answers_the_originals_request_as_the_original_did(api: Api) -> None:
    body = {
        "id": "msg-unique-id-123",
        "scheduleTo": "2046-04-15T02:41:45.000Z",
        "payload": {"message": "Sua mensagem aqui", "data": {"customField": "valor"}},
        "webhookUrl": "https://seu-webhook.com/endpoint",
    }
    async with api.client.post("/messages", json=body) as response:
        assert response.status == 201
        assert await response.json() == {
            "status": "scheduled",
            "messageId": "msg-unique-id-123",
            "scheduledFor": AT,
        }


async def test_create_makes_an_id_of_uuid_version_7_that_sorts_by_time(
    api: Api,
) -> None:
    ids = []
    for _ in range(3):
        before = datetime.now(UTC)
        made = uuid.UUID((await create(api))["messageId"])
        assert (made.version, made.variant) == (7, uuid.RFC_4122)
        at = datetime.fromtimestamp((made.int >> 80) / 1000, UTC)
        assert before - timedelta(milliseconds=1) <= at <= datetime.now(UTC)
        ids.append(str(made)[:13])
    assert ids == sorted(ids)


@pytest.mark.parametrize("message_id", ODD_IDS)
async def test_create_returns_a_location_that_get_and_delete_accept(
    api: Api, message_id: str
) -> None:
    body = {"id": message_id, "webhookUrl": URL, "delay": 60}
    async with api.client.post("/messages", json=body) as response:
        assert response.status == 201
        location = response.headers["Location"]
    assert location.isascii()
    head = f"GET {location} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    token = api.client.headers["Authorization"]
    answer = await api.raw(f"{head}Authorization: {token}\r\n\r\n".encode())
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["id"] == message_id
    answer = await api.raw(
        f"{head.replace('GET', 'DELETE', 1)}Authorization: {token}\r\n\r\n".encode()
    )
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_create_refuses_a_character_that_the_charset_does_not_have(api: Api) -> None:
    body = {"webhookUrl": URL, "payload": "5 €", "contentType": "text/plain; charset=latin1"}
    async with api.client.post("/messages", json=body) as response:
        assert response.status == 422
        (error,) = (await response.json())["errors"]
    assert error["path"] == "/payload"
    assert "is not in latin1" in error["message"]


async def test_create_ignores_the_content_type_of_the_request(api: Api) -> None:
    headers = {"Content-Type": "text/plain; charset=latin-1"}
    body = json.dumps({"webhookUrl": URL}).encode()
    async with api.client.post("/messages", data=body, headers=headers) as response:
        assert response.status == 201


async def test_create_in_the_past_keeps_the_instant_and_is_due_at_once(
    api: Api, live_store: Store
) -> None:
    created = await create(api, id="a", scheduleTo="1999-12-31T23:59:59Z")
    assert created["scheduledFor"] == "1999-12-31T23:59:59+00:00"
    assert len((await queue_of(live_store, "a").claim(10)).messages) == 1


@pytest.mark.parametrize(
    ("members", "at"),
    [
        ({"scheduleTo": "9999-12-31T23:59:59.999Z"}, "9999-12-31T23:59:59.999+00:00"),
        ({"scheduleTo": "2046-01-01T00:00", "timezone": "Asia/Tokyo"}, "2045-12-31T15:00:00+00:00"),
        ({"scheduleTo": "2046-01-01T00:00"}, "2046-01-01T00:00:00+00:00"),
    ],
)
async def test_create_answers_the_instant_in_utc(
    api: Api, members: dict[str, str], at: str
) -> None:
    assert (await create(api, **members))["scheduledFor"] == at


async def test_create_with_the_longest_delay_is_shown_and_listed(api: Api) -> None:
    await create(api, id="far", delay=365 * 7_500 * 86_400)
    assert (await show(api, "far"))["scheduledFor"] > "9500"
    assert (await page(api))["scheduledJobs"][0]["nextRun"] > "9500"


async def test_create_refuses_a_taken_id_with_the_state_of_its_message(api: Api) -> None:
    await create(api, id="a", scheduleTo=AT)
    async with api.client.post("/messages", json={"id": "a", "webhookUrl": URL}) as response:
        found = await problem(response, 409, "duplicate_message")
    assert (found["state"], found["scheduledFor"]) == ("scheduled", AT)
    assert "scheduled" in found["detail"]
    assert (await show(api, "a"))["scheduledFor"] == AT


async def test_create_stores_one_of_50_simultaneous_requests_for_an_id(api: Api) -> None:
    async def attempt(number: int) -> int:
        body = {"id": "one", "webhookUrl": URL, "payload": number, "delay": 60}
        async with api.client.post("/messages", json=body) as response:
            return response.status

    statuses = await asyncio.gather(*map(attempt, range(50)))
    assert sorted(statuses) == [201, *[409] * 49]
    assert (await page(api))["total"] == 1
    assert (await show(api, "one"))["payload"] == statuses.index(201)


async def test_create_refuses_a_repeat_of_a_delivered_message(api: Api, live_store: Store) -> None:
    created = await create(api, id="a", payload=1)
    await tried(live_store, "delivered", 200)
    body = {"id": "a", "webhookUrl": URL, "payload": 1}
    async with api.client.post("/messages", json=body) as response:
        found = await problem(response, 409, "duplicate_message")
    assert (found["state"], found["scheduledFor"]) == ("delivered", created["scheduledFor"])


async def test_create_takes_a_repeated_delay_for_a_new_message_after_two_minutes(
    api: Api, live_store: Store, redis: Redis
) -> None:
    await create(api, id="a", payload=1, delay=0)
    await tried(live_store, "delivered", 200)
    payloads = f"{keys_of(live_store, 'a').base}payloads"
    record: Any = await redis.hget(payloads, "a")
    earlier = int.from_bytes(record[1:7]) - 121_000
    await redis.hset(payloads, "a", record[:1] + earlier.to_bytes(6) + record[7:])
    await create(api, id="a", payload=1, delay=0)
    found = await show(api, "a")
    assert (found["state"], found["attempts"]) == ("scheduled", [])


async def test_create_stores_another_request_under_a_delivered_id(
    api: Api, live_store: Store
) -> None:
    await create(api, id="a", payload=1)
    await tried(live_store, "delivered", 200)
    await create(api, id="a", payload=2, delay=60)
    found = await show(api, "a")
    assert (found["state"], found["payload"], found["attempts"]) == ("scheduled", 2, [])
