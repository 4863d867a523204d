"""GET /messages and GET /messages/{id}: what is shown."""

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from scheduler_api.domain.message import State
from scheduler_api.domain.retry import MAX_ATTEMPTS
from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.api.messages.calls import AT, create, page, show, tried
from tests.conftest import PARTITIONS
from tests.support.factories import URL, accepted
from tests.support.message_states import Verdict
from tests.support.partitions import neighbours, queue_of

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")
EXACT = b'{ "z" : 12345678901234567890.10,  "a":"\\u00e9\\/",\n "b":[1E+2, 0.10, -0 ] , "a":null}'


async def test_get_shows_every_option_that_was_asked_for(api: Api) -> None:
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


async def test_get_leaves_out_options_that_were_not_asked_for(api: Api) -> None:
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


async def test_get_shows_the_payload_byte_for_byte(api: Api) -> None:
    body = b'{"id": "exact", "webhookUrl": "%b", "payload": %b, "delay": 60}'
    async with api.client.post("/messages", data=body % (URL.encode(), EXACT)) as response:
        assert response.status == 201
    async with api.client.get("/messages/exact") as response:
        assert EXACT in await response.read()


@pytest.mark.parametrize("value", [None, False, 0, "", [], {}])
async def test_get_shows_an_empty_payload(api: Api, value: Any) -> None:
    await create(api, id="a", payload=value, delay=60)
    assert (await show(api, "a"))["payload"] == value


@pytest.mark.parametrize(
    "as_given", [{"contentType": "text/plain"}, {"headers": {"Content-Type": "text/plain"}}]
)
async def test_get_shows_text_as_the_string_that_was_given(
    api: Api, as_given: dict[str, Any]
) -> None:
    await create(api, id="text", payload='olá "você"\n', delay=60, **as_given)
    found = await show(api, "text")
    assert (found["payload"], found["contentType"]) == ('olá "você"\n', "text/plain")


async def test_get_shows_an_international_url_as_given_and_list_as_called(api: Api) -> None:
    given = "http://127.0.0.1:2/preço?q=日本"
    await create(api, id="a", webhookUrl=given, delay=60)
    assert (await show(api, "a"))["webhookUrl"] == given
    (row,) = (await page(api))["scheduledJobs"]
    assert row["webhookUrl"] == "http://127.0.0.1:2/pre%C3%A7o?q=%E6%97%A5%E6%9C%AC"


async def test_get_shows_text_in_another_charset_as_it_was_given(api: Api) -> None:
    given = {"payload": "olá", "contentType": "text/plain; charset=iso-8859-1"}
    await create(api, id="text", delay=60, **given)
    found = await show(api, "text")
    assert {name: found[name] for name in given} == given


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
async def test_get_shows_the_attempts_and_the_reason_for_the_state(
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
    assert (found["state"], found["why"]) == ("delivering", "being sent, or about to be")
    assert found["nextAttempt"] is None


async def test_get_shows_that_a_destination_is_at_its_concurrency_limit(
    api: Api, live_store: Store
) -> None:
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
async def test_get_and_delete_of_an_unknown_id_are_404(
    api: Api, method: str, message_id: str
) -> None:
    token = api.client.headers["Authorization"]
    head = f"{method} /messages/{message_id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    answer = await api.raw(f"{head}Authorization: {token}\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert (b'"code":"message_not_found"' in answer) == (method != "HEAD")


async def test_list_answers_as_the_original_did(api: Api) -> None:
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


async def test_list_of_no_messages_is_empty(api: Api) -> None:
    found = await page(api)
    assert (found["scheduledJobs"], found["count"], found["total"]) == ([], 0, 0)


async def test_list_has_every_pending_state_and_no_finished_message(
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


async def test_list_pages_have_every_message_once_soonest_first(api: Api) -> None:
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


async def test_list_accepts_a_cursor_whose_message_is_gone(api: Api) -> None:
    for name in "abc":
        await create(api, id=name, scheduleTo=AT)
    cursor = (await page(api, limit=2))["nextCursor"]
    async with api.client.delete("/messages/b"):
        pass
    rest = await page(api, cursor=cursor)
    assert [row["messageId"] for row in rest["scheduledJobs"]] == ["c"]


async def test_list_takes_an_empty_cursor_for_the_first_page(api: Api) -> None:
    await create(api, id="a", delay=60)
    assert (await page(api, cursor=""))["count"] == 1
