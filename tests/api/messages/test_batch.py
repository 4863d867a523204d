"""POST /messages/batch: every message is answered as it would have been alone."""

import io
import json
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from scheduler_api.api.messages.batch import CHECK_BATCH, MAX_BATCH
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.store import Store
from tests.api.conftest import MAX_BODY, Api
from tests.support.factories import URL
from tests.support.problems import problem, wrong_paths

BROKEN = b'{"messages": [{"webhookUrl": "\\q"}, {}]}'  # inside one of them
AT = "2046-04-15T02:41:45+00:00"
GOOD = {"webhookUrl": URL, "scheduleTo": AT}
WRONG = [
    {"webhookUrl": "ftp://x"},
    GOOD | {"id": "a/b"},
    GOOD | {"delay": "1s"},
    GOOD | {"webhookURL": URL},
    {"id": "only"},
    7,
    [],
    None,
]


async def results(api: Api, *messages: Any) -> list[Any]:
    """What is answered to each."""
    async with api.client.post("/messages/batch", json={"messages": messages}) as response:
        assert response.status == 200, await response.text()
        found = await response.json()
        assert set(found) == {"results"}
        assert len(found["results"]) == len(messages)
        return list(found["results"])


async def alone(api: Api, message: Any) -> dict[str, Any]:
    """The single call's answer, in the form of a result."""
    async with api.client.post("/messages", data=json.dumps(message)) as response:
        return {"status": response.status, "body": await response.json(content_type=None)}


async def test_create_many_answers_in_the_order_of_the_request(api: Api) -> None:
    count = 2 * CHECK_BATCH + 1
    found = await results(api, *(GOOD | {"id": str(number)} for number in range(count)))
    assert found == [
        {
            "status": 201,
            "body": {"status": "scheduled", "messageId": str(number), "scheduledFor": AT},
        }
        for number in range(count)
    ]


async def test_create_many_makes_an_id_for_each_message_without_one(api: Api) -> None:
    found = await results(api, GOOD, GOOD)
    ids = {one["body"]["messageId"] for one in found}
    assert len(ids) == 2
    for message_id in ids:
        async with api.client.get(f"/messages/{message_id}") as response:
            assert response.status == 200


@pytest.mark.parametrize("message", WRONG)
async def test_create_many_answers_an_invalid_message_as_alone_and_stores_the_others(
    api: Api, message: Any
) -> None:
    first, wrong, last = await results(api, GOOD, message, GOOD)
    assert (first["status"], last["status"]) == (201, 201)
    assert wrong == await alone(api, message)
    assert wrong["status"] == 422


async def test_create_many_answers_a_taken_id_as_alone(api: Api) -> None:
    message = GOOD | {"id": "a"}
    first, again = await results(api, message, message)
    assert (first["status"], again["status"]) == (201, 409)
    assert again == await alone(api, message)
    assert again["body"]["code"] == "duplicate_message"


async def test_create_many_keeps_payloads_byte_for_byte(api: Api, live_store: Store) -> None:
    payload = b'{ "z" : 12345678901234567890.10,  "a":"\\u00e9\\/"}'
    body = b'{"messages": [{"id": "a", "webhookUrl": "%b", "payload": %b}]}' % (
        URL.encode(),
        payload,
    )
    async with api.client.post("/messages/batch", data=body) as response:
        assert response.status == 200
    assert (await live_store.messages.get("a")).spec.body == payload


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "/messages"),
        ({"messages": []}, "/messages"),
        ({"messages": [GOOD] * (MAX_BATCH + 1)}, "/messages"),
        ({"messages": {}}, "/messages"),
        ({"mesages": [GOOD]}, "/mesages"),
    ],
)
async def test_create_many_refuses_a_batch_of_another_form_whole(
    api: Api, body: Any, path: str
) -> None:
    async with api.client.post("/messages/batch", json=body) as response:
        assert await wrong_paths(response) == [path]
    async with api.client.get("/messages") as response:
        assert (await response.json())["total"] == 0


async def test_create_many_stores_the_maximum_number(api: Api) -> None:
    found = await results(api, *[GOOD] * MAX_BATCH)
    assert {one["status"] for one in found} == {201}
    async with api.client.get("/messages") as response:
        assert (await response.json())["total"] == MAX_BATCH


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"messages": [{}', b'{"messages": ["\xff"]}', BROKEN]
)
async def test_create_many_refuses_invalid_json_whole(api: Api, body: bytes) -> None:
    async with api.client.post("/messages/batch", data=body) as response:
        await problem(response, 400, "malformed_request")


async def test_create_many_refuses_a_body_over_max_body(api: Api) -> None:
    body = json.dumps({"messages": [GOOD | {"payload": "x" * MAX_BODY}]}).encode()
    async with api.client.post("/messages/batch", data=io.BytesIO(body)) as response:
        await problem(response, 413, "payload_too_large")


async def test_create_many_without_a_store_is_answered_as_a_single_create(
    without_store: Api,
) -> None:
    body = {"messages": [GOOD, {"id": "wrong"}, GOOD]}
    async with without_store.client.post("/messages/batch", json=body) as response:
        await problem(response, 503, StoreUnavailable.code)
        assert response.headers["Retry-After"]


async def test_create_many_does_not_call_the_store_if_all_are_invalid(without_store: Api) -> None:
    assert [one["status"] for one in await results(without_store, {}, 7)] == [422, 422]


async def test_create_many_requires_a_token(api: Api) -> None:
    url = f"http://127.0.0.1:{api.port}/messages/batch"
    async with aiohttp.ClientSession() as session, session.post(url, json={}) as response:
        await problem(response, 401, "unauthenticated")


async def test_create_many_logs_one_event(api: Api) -> None:
    with capture_logs() as logs:
        await results(api, GOOD, GOOD, {})
    created = [entry for entry in logs if entry["event"] == "messages_created"]
    assert created == [
        {"event": "messages_created", "log_level": "info", "created": 2, "refused": 1}
    ]
