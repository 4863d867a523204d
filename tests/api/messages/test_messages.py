"""/messages: what is stored, what is shown, what is refused."""

import asyncio
import json
import re
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.message import State
from scheduler_api.domain.retry import MAX_ATTEMPTS
from scheduler_api.store.claims import Outcome
from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.conftest import PARTITIONS
from tests.support.factories import URL, accepted
from tests.support.message_states import Verdict, decided
from tests.support.partitions import keys_of, neighbours, queue_of
from tests.support.problems import problem

AT = "2046-04-15T02:41:45+00:00"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")
EXACT = b'{ "z" : 12345678901234567890.10,  "a":"\\u00e9\\/",\n "b":[1E+2, 0.10, -0 ] , "a":null}'
ODD_IDS = ["a b", "é", "?", "#", "%", "%2F", "a+b", "a&b=c", "😀", "...", "'\"", "\\", "~", "a:b"]


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


async def test_the_originals_create_is_answered_as_the_original_did(api: Api) -> None:
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


async def test_a_message_without_an_id_gets_a_uuid_of_version_7_that_sorts_by_time(
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
async def test_location_leads_to_the_message_and_away_again(api: Api, message_id: str) -> None:
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


async def test_get_shows_every_field_as_it_was_asked(api: Api) -> None:
    asked = {
        "id": "all",
        "webhookUrl": URL,
        "payload": [1, {"a": None}],
        "delay": "1h30m",
        "timezone": "America/Sao_Paulo",
        "method": "PATCH",
        "headers": {"X-A": "1", "Authorization": "Bearer b"},
        "contentType": "application/vnd.a+json",
        "timeout": "1.5s",
    }
    created = await create(api, **asked)
    found = await show(api, "all")
    assert INSTANT.fullmatch(found["createdAt"])
    created_at = datetime.fromisoformat(found.pop("createdAt"))
    scheduled_for = created_at + timedelta(minutes=90)
    assert datetime.fromisoformat(found["scheduledFor"]) == scheduled_for
    assert found.pop("scheduledFor") == found.pop("nextAttempt") == created["scheduledFor"]
    assert found == asked | {
        "delay": 5400.0,
        "timeout": 1.5,
        "state": "scheduled",
        "why": "waits for its time",
        "attempts": [],
    }


async def test_get_leaves_out_what_was_not_asked(api: Api) -> None:
    await create(api, id="least", scheduleTo=AT)
    found = await show(api, "least")
    del found["createdAt"]
    assert found == {
        "id": "least",
        "webhookUrl": URL,
        "method": "POST",
        "headers": {},
        "contentType": "application/json",
        "state": "scheduled",
        "why": "waits for its time",
        "scheduledFor": AT,
        "nextAttempt": AT,
        "attempts": [],
    }


async def test_the_payload_is_shown_byte_for_byte(api: Api) -> None:
    body = b'{"id": "exact", "webhookUrl": "%b", "payload": %b, "delay": 60}'
    async with api.client.post("/messages", data=body % (URL.encode(), EXACT)) as response:
        assert response.status == 201
    async with api.client.get("/messages/exact") as response:
        assert EXACT in await response.read()


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
async def test_a_payload_that_is_nothing_is_still_a_payload(api: Api, value: Any) -> None:
    await create(api, id="a", payload=value, delay=60)
    assert (await show(api, "a"))["payload"] == value


@pytest.mark.parametrize(
    "as_given", [{"contentType": "text/plain"}, {"headers": {"Content-Type": "text/plain"}}]
)
async def test_text_is_shown_as_the_string_it_was_given_as(
    api: Api, as_given: dict[str, Any]
) -> None:
    await create(api, id="text", payload='olá "você"\n', delay=60, **as_given)
    found = await show(api, "text")
    assert (found["payload"], found["contentType"]) == ('olá "você"\n', "text/plain")


async def test_create_shows_an_international_url_as_given_and_lists_it_as_called(api: Api) -> None:
    given = "http://127.0.0.1:2/preço?q=日本"
    await create(api, id="a", webhookUrl=given, delay=60)
    assert (await show(api, "a"))["webhookUrl"] == given
    (row,) = (await page(api))["scheduledJobs"]
    assert row["webhookUrl"] == "http://127.0.0.1:2/pre%C3%A7o?q=%E6%97%A5%E6%9C%AC"


async def test_create_shows_text_in_another_charset_as_it_was_given(api: Api) -> None:
    given = {"payload": "olá", "contentType": "text/plain; charset=iso-8859-1"}
    await create(api, id="text", delay=60, **given)
    found = await show(api, "text")
    assert {name: found[name] for name in given} == given


async def test_create_refuses_a_character_that_the_charset_does_not_have(api: Api) -> None:
    body = {"webhookUrl": URL, "payload": "5 €", "contentType": "text/plain; charset=latin1"}
    async with api.client.post("/messages", json=body) as response:
        assert response.status == 422
        (error,) = (await response.json())["errors"]
    assert error["path"] == "/payload"
    assert "is not in latin1" in error["message"]


async def test_the_type_of_the_request_does_not_matter(api: Api) -> None:
    headers = {"Content-Type": "text/plain; charset=latin-1"}
    body = json.dumps({"webhookUrl": URL}).encode()
    async with api.client.post("/messages", data=body, headers=headers) as response:
        assert response.status == 201


async def test_a_time_in_the_past_is_kept_and_due_at_once(api: Api, live_store: Store) -> None:
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
async def test_an_instant_is_answered_in_utc(api: Api, members: dict[str, str], at: str) -> None:
    assert (await create(api, **members))["scheduledFor"] == at


async def test_the_longest_delay_can_be_stored_shown_and_listed(api: Api) -> None:
    await create(api, id="far", delay=365 * 7_500 * 86_400)
    assert (await show(api, "far"))["scheduledFor"] > "9500"
    assert (await page(api))["scheduledJobs"][0]["nextRun"] > "9500"


async def test_an_id_that_is_taken_is_refused_with_what_has_it(api: Api) -> None:
    await create(api, id="a", scheduleTo=AT)
    async with api.client.post("/messages", json={"id": "a", "webhookUrl": URL}) as response:
        found = await problem(response, 409, "duplicate_message")
    assert (found["state"], found["scheduledFor"]) == ("scheduled", AT)
    assert "scheduled" in found["detail"]
    assert (await show(api, "a"))["scheduledFor"] == AT


async def test_of_50_simultaneous_creates_of_one_id_one_is_stored(api: Api) -> None:
    async def attempt(number: int) -> int:
        body = {"id": "one", "webhookUrl": URL, "payload": number, "delay": 60}
        async with api.client.post("/messages", json=body) as response:
            return response.status

    statuses = await asyncio.gather(*map(attempt, range(50)))
    assert sorted(statuses) == [201, *[409] * 49]
    assert (await page(api))["total"] == 1
    assert (await show(api, "one"))["payload"] == statuses.index(201)


async def test_the_same_create_after_its_delivery_does_not_send_twice(
    api: Api, live_store: Store
) -> None:
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


async def test_another_create_under_a_delivered_id_is_a_new_message(
    api: Api, live_store: Store
) -> None:
    await create(api, id="a", payload=1)
    await tried(live_store, "delivered", 200)
    await create(api, id="a", payload=2, delay=60)
    found = await show(api, "a")
    assert (found["state"], found["payload"], found["attempts"]) == ("scheduled", 2, [])


@pytest.mark.parametrize(
    ("verdict", "status", "error", "state", "why"),
    [
        ("delivered", 200, None, "delivered", f"delivered after 1 of {MAX_ATTEMPTS} attempts"),
        (
            "retry",
            503,
            None,
            "retrying",
            f"waits for its next attempt; 1 of {MAX_ATTEMPTS} attempts made; last: HTTP 503",
        ),
        (
            "failed",
            None,
            "timeout",
            "failed",
            f"failed after 1 of {MAX_ATTEMPTS} attempts; last: timeout",
        ),
    ],
)
async def test_get_shows_the_attempts_and_why_the_message_stands_where_it_does(
    api: Api,
    live_store: Store,
    verdict: Verdict,
    status: int | None,
    error: str | None,
    state: State,
    why: str,
) -> None:
    await create(api, id="a")
    await tried(live_store, verdict, status, error)
    found = await show(api, "a")
    assert (found["state"], found["why"]) == (state, why)
    assert (found["nextAttempt"] is not None) == (state == "retrying")
    (attempt,) = found["attempts"]
    assert INSTANT.fullmatch(attempt.pop("startedAt"))
    assert attempt == {
        "number": 1,
        "durationMs": 12,
        "status": status,
        "error": error,
        "responseExcerpt": "busy",
        "latenessMs": 3,
    }


async def test_get_shows_where_a_redirect_leads(api: Api, live_store: Store) -> None:
    await create(api, id="a")
    await tried(live_store, "retry", 302, location="https://elsewhere.example/")
    (attempt,) = (await show(api, "a"))["attempts"]
    assert attempt["location"] == "https://elsewhere.example/"


async def test_get_shows_that_a_message_is_being_sent(api: Api, live_store: Store) -> None:
    await create(api, id="a")
    await queue_of(live_store, "a").claim(1)
    found = await show(api, "a")
    assert (found["state"], found["why"]) == ("delivering", "being sent")
    assert found["nextAttempt"] is None


async def test_get_shows_that_a_destination_is_at_its_limit(api: Api, live_store: Store) -> None:
    ids = neighbours(live_store, 65)  # one more than a destination may have in flight
    for message_id in ids:
        await live_store.messages.create(message_id, accepted(scheduleTo="2001-01-01"))
    claimed = (await live_store.queues[0].claim(100)).messages
    assert len(claimed) == 64
    (left,) = set(ids) - {one.id for one in claimed}
    found = await show(api, left)
    assert (found["state"], found["why"]) == ("scheduled", "destination at its concurrency limit")
    assert (await page(api))["total"] == 65


async def test_get_counts_the_processes_that_crashed_while_sending(
    api: Api, redis: Any, prefix: str
) -> None:
    await create(api, id="a")
    dying = Store(redis, prefix=prefix, partitions=PARTITIONS, lease=timedelta(milliseconds=1))
    queue = queue_of(dying, "a")
    for crashes in ("1 process", "2 processes"):
        await queue.claim(1)
        for _ in range(1000):
            if (await queue.reap())[0]:
                break
        why = (await show(api, "a"))["why"]
        assert why == f"waits for its time; {crashes} crashed while sending"


@pytest.mark.parametrize("message_id", ["nope", "a" * 5000, "%FF", "%00", "a%0Ab", "%F0%9F"])
@pytest.mark.parametrize("method", ["GET", "DELETE", "HEAD"])
async def test_an_id_that_nothing_has_is_a_404(api: Api, method: str, message_id: str) -> None:
    token = api.client.headers["Authorization"]
    head = f"{method} /messages/{message_id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await api.raw(f"{head}Authorization: {token}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert (b'"code":"message_not_found"' in answer) == (method != "HEAD")


async def test_delete_is_answered_as_the_original_did_and_frees_the_id(api: Api) -> None:
    await create(api, id="a", delay=60)
    async with api.client.delete("/messages/a") as response:
        assert response.status == 200
        assert await response.json() == {"status": "deleted", "messageId": "a"}
    async with api.client.get("/messages/a") as response:
        await problem(response, 404, "message_not_found")
    async with api.client.delete("/messages/a") as response:
        await problem(response, 404, "message_not_found")
    await create(api, id="a", delay=60)


async def test_what_is_on_the_wire_is_not_deleted(api: Api, live_store: Store) -> None:
    await create(api, id="a")
    await queue_of(live_store, "a").claim(1)
    async with api.client.delete("/messages/a") as response:
        await problem(response, 409, "in_flight")
    assert (await show(api, "a"))["state"] == "delivering"


@pytest.mark.parametrize("verdict", ["delivered", "failed"])
async def test_what_is_finished_is_not_deleted(
    api: Api, live_store: Store, verdict: Verdict
) -> None:
    await create(api, id="a")
    await tried(live_store, verdict)
    async with api.client.delete("/messages/a") as response:
        await problem(response, 404, "message_finished")
    assert (await show(api, "a"))["state"] == verdict


async def test_the_list_is_as_the_original_has_it(api: Api) -> None:
    await create(api, id="a", scheduleTo=AT)
    found = await page(api)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found.pop("timestamp"))
    row = {
        "messageId": "a",
        "nextRun": AT,
        "trigger": "date[2046-04-15 02:41:45 UTC]",
        "webhookUrl": URL,
        "state": "scheduled",
        "attempts": 0,
        "tags": [],
    }
    assert found == {"scheduledJobs": [row], "count": 1, "total": 1, "nextCursor": None}


async def test_an_empty_list_is_a_list(api: Api) -> None:
    found = await page(api)
    assert (found["scheduledJobs"], found["count"], found["total"]) == ([], 0, 0)


async def test_the_list_has_what_waits_is_retried_or_is_sent_and_not_what_is_finished(
    api: Api, live_store: Store
) -> None:
    await create(api, id="delivered", scheduleTo="2001-01-01")
    await tried(live_store, "delivered", 200, message_id="delivered")
    await create(api, id="retrying", scheduleTo="2001-01-01")
    await tried(live_store, "retry", message_id="retrying")
    await create(api, id="delivering", scheduleTo="2001-01-01")
    await queue_of(live_store, "delivering").claim(1)
    await create(api, id="scheduled", scheduleTo=AT)
    rows = (await page(api))["scheduledJobs"]
    assert [(row["messageId"], row["state"], row["attempts"]) for row in rows] == [
        ("delivering", "delivering", 0),
        ("retrying", "retrying", 1),
        ("scheduled", "scheduled", 0),
    ]


async def test_pages_hold_every_message_once_soonest_first(api: Api) -> None:
    for number in (3, 1, 4, 0, 2):
        await create(api, id=f"é{number}", delay=60 + number // 2)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        found = await page(api, limit=2, **cursor)
        assert (found["count"], found["total"]) == (len(found["scheduledJobs"]), 5)
        seen += [row["messageId"] for row in found["scheduledJobs"]]
        if found["nextCursor"] is None:
            break
        assert found["count"] == 2
        cursor = {"cursor": found["nextCursor"]}
    # Of two messages due in the same second, the one that was asked for first is due first.
    assert seen == ["é1", "é0", "é3", "é2", "é4"]


async def test_a_cursor_stays_good_when_its_message_is_gone(api: Api) -> None:
    for name in "abc":
        await create(api, id=name, scheduleTo=AT)
    cursor = (await page(api, limit=2))["nextCursor"]
    async with api.client.delete("/messages/b"):
        pass
    rest = await page(api, cursor=cursor)
    assert [row["messageId"] for row in rest["scheduledJobs"]] == ["c"]


async def test_an_empty_cursor_is_the_first_page(api: Api) -> None:
    await create(api, id="a", delay=60)
    assert (await page(api, cursor=""))["count"] == 1
