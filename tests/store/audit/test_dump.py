"""Whole messages out of one store and into another: nothing changed, nothing twice, in order."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from scheduler_api.admin.ndjson import pack_line, position_of, unpack_line, unpack_original
from scheduler_api.domain.accept import accept
from scheduler_api.domain.errors import Invalid
from scheduler_api.domain.message import Accepted, Message, NewMessage
from scheduler_api.store.audit.dump import Restorable
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.support.factories import LOOPBACK, URL, accepted
from tests.support.message_states import PENDING, attempt, bring, everything, outcome
from tests.support.store_clock import Clock, clock_lib

AT = "2027-01-15T08:00:00Z"  # NOW


@pytest.fixture
def other(redis: Redis, prefix: str, clock: Clock) -> Store:
    """Another store, of three partitions, on the same clock."""
    return Store(redis, prefix=f"{prefix}-other", partitions=3, libs=clock_lib(clock.key))


async def lines(store: Store, **after: Any) -> list[bytes]:
    return [pack_line(message) async for message in store.dump.pending(**after)]


async def put(store: Store, *texts: bytes) -> list[str]:
    restored = await store.dump.restore([unpack_line(text, LOOPBACK) for text in texts])
    return [str(word) for word in restored]


async def moved(store: Store, other: Store, message_id: str) -> tuple[Message, Message]:
    """The message before and after it went through a line."""
    assert await put(other, *await lines(store)) == ["ok"]
    return await store.messages.get(message_id), await other.messages.get(message_id)


PAYLOADS = [
    '{"a" : 1.50, "b": 12345678901234567890, "b": "\\u00e9"}',
    '{\n  "pretty": [1,\r\n 2]\n}',
    '"text"',
    "null",
    "0",
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_restore_keeps_a_payload_byte_for_byte(
    store: Store, other: Store, payload: str
) -> None:
    body = f'{{"webhookUrl": "{URL}", "payload": {payload}, "delay": 60}}'
    await store.messages.create("a", accepted_from(body))
    (line,) = await lines(store)
    assert line.count(b"\n") == 1
    before, after = await moved(store, other, "a")
    assert after == before
    assert after.spec.body == payload.encode()


def accepted_from(body: str) -> Accepted:
    new = msgspec.json.decode(body.encode(), type=NewMessage)
    return accept(new, "UTC", LOOPBACK.refusal_of_literal)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"scheduleTo": "2027-02-01T10:00:00.123", "timezone": "America/Sao_Paulo"},
        {"delay": "1h30m", "timeout": "1.5s", "method": "PUT"},
        {"headers": {"X-A": "1", "Content-Type": "text/plain"}, "payload": "línea\n2"},
        {"contentType": "application/vnd.api+json", "payload": {"a": 1}},
        {"contentType": "text/csv", "payload": "a,b\n"},
    ],
)
async def test_restore_keeps_every_option(
    store: Store, other: Store, fields: dict[str, Any]
) -> None:
    await store.messages.create("ä b", accepted(**fields))
    before, after = await moved(store, other, "ä b")
    assert after == before
    assert await put(store, *await lines(store)) == ["same"]
    assert await put(other, *await lines(store)) == ["same"]


async def test_restore_keeps_attempts_crashes_and_the_next_attempt(
    store: Store, other: Store, clock: Clock
) -> None:
    await store.messages.create("a", accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    assert await store.queues[0].settle(outcome(claimed, "retry", timedelta(minutes=1)))
    await clock.advance(60_000)
    await store.queues[0].claim(1)
    await clock.advance(15_000)
    assert await store.queues[0].reap() == (1, [])
    before, after = await moved(store, other, "a")
    assert after == before
    assert (len(after.attempts), after.crashes, after.state) == (1, 1, "retrying")
    assert after.next_attempt_at != after.scheduled_at


@pytest.mark.parametrize("location", [None, "https://elsewhere.example/é"])
async def test_restore_keeps_the_location_of_a_redirect(
    store: Store, other: Store, location: str | None
) -> None:
    await store.messages.create("a", accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    redirected = replace(outcome(claimed, "retry"), attempt=attempt(status=302, location=location))
    assert await store.queues[0].settle(redirected)
    (line,) = await lines(store)
    assert (b"location" in line) == (location is not None)
    before, after = await moved(store, other, "a")
    assert before.attempts == after.attempts == [attempt(status=302, location=location)]


@pytest.mark.parametrize("state", PENDING)
async def test_pending_has_messages_of_every_pending_state(store: Store, state: str) -> None:
    await bring(store, state)
    assert "a" in [unpack_line(line, LOOPBACK).id for line in await lines(store)]


@pytest.mark.parametrize("state", ["delivered", "failed"])
async def test_pending_has_no_finished_message(store: Store, state: str) -> None:
    await bring(store, state)
    assert await lines(store) == []


async def test_pending_continues_after_any_position(store: Store, other: Store) -> None:
    for number in range(250):
        await store.messages.create(f"m{number}", accepted(delay=number // 2))
    assert set(await put(other, *await lines(store))) == {"ok"}
    whole = await lines(other)
    assert len(whole) == 250
    for cut in (1, 99, 100, 249, 250):
        assert await lines(other, after=position_of(whole[cut - 1])) == whole[cut:]


async def test_pending_leaves_out_a_message_without_a_record(redis: Redis, store: Store) -> None:
    await store.messages.create("a", accepted(delay=1))
    await redis.zadd(store.keys[0].all[0], {"lost": NOW})
    assert [unpack_line(line, LOOPBACK).id for line in await lines(store)] == ["a"]
    await store.queues[0].claim(1)


async def test_restore_keeps_the_webhook_id(store: Store, other: Store) -> None:
    await store.messages.create("a", accepted())
    await put(other, *await lines(store))
    (before,) = (await store.queues[0].claim(1)).messages
    claims = [await queue.claim(1) for queue in other.queues]
    (after,) = [message for claim in claims for message in claim.messages]
    assert after.webhook_id == before.webhook_id


@pytest.mark.parametrize(
    "change",
    [
        (b'"payload":1', b'"payload":2'),
        (b'"scheduleTo":"2027-01-15T08:01', b'"scheduleTo":"2027-01-15T08:02'),
        (b'"delay":60', b'"delay":61'),
        (b'"timezone":"UTC"', b'"timezone":"Europe/Paris"'),
    ],
)
async def test_restore_distinguishes_another_message_from_the_same(
    store: Store, change: tuple[bytes, bytes]
) -> None:
    await store.messages.create("a", accepted(payload=1, delay=60, timezone="UTC"))
    (line,) = await lines(store)
    assert line.count(change[0]) == 1
    assert await put(store, line, line.replace(*change)) == ["same", "other"]


@pytest.mark.parametrize("state", [*PENDING, "delivered", "failed"])
async def test_restore_leaves_an_existing_message_unchanged(
    redis: Redis, store: Store, state: str
) -> None:
    await store.messages.create("a", accepted(scheduleTo=AT))
    line, changed = (await lines(store))[0], (await lines(store))[0].replace(b"POST", b"PUT")
    await store.messages.cancel("a")
    await bring(store, state, scheduleTo=AT)
    before = await everything(redis, store.keys[0])
    assert await put(store, line) == ["same"]
    assert await put(store, changed.replace(b'"id"', b'"method":"PUT","id"')) == ["other"]
    assert await everything(redis, store.keys[0]) == before


async def test_restore_makes_an_overdue_message_due_at_once(other: Store) -> None:
    message = Restorable("a", NOW - 5_000, None, NOW - 5_000, accepted())
    assert await other.dump.restore([message]) == ["ok"]
    claims = [await queue.claim(1) for queue in other.queues]
    assert [message.id for claim in claims for message in claim.messages] == ["a"]


async def test_restore_answers_many_in_their_order(other: Store) -> None:
    messages = [Restorable(f"m{n}", NOW, NOW, NOW, accepted()) for n in range(350)]
    assert await other.dump.restore(messages[:1]) == ["ok"]
    taken = replace(messages[1], scheduled_ms=NOW + 1)
    assert await other.dump.restore([taken]) == ["ok"]
    assert await other.dump.restore(messages) == ["same", "other", *["ok"] * 348]
    assert await other.messages.count() == 350


GOOD = f'{{"id": "a", "webhookUrl": "{URL}", "scheduleTo": "{AT}", "createdAt": "{AT}"'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "truncated"),
        ("[]", "must be an object, not an array"),
        (GOOD + ', "payloads": 1}', "/payloads: there is no such field; did you mean payload?"),
        (GOOD + ', "payloadBase64": "?"}', "payloadBase64 must be base64"),
        (GOOD + ', "payloadBase64": "ew=="}', "truncated"),
        (GOOD + ', "payload": "\\ud800"}', ""),
        (GOOD + ', "attemptsMade": -1}', "/attemptsMade: must be at least 0"),
        (GOOD + ', "method": "TRACE"}', "TRACE"),
        (GOOD + ', "nextAttempt": "soon"}', "ISO 8601"),
        (GOOD.replace('"a"', '"a/b"') + "}", "not contain a slash"),
        (GOOD.replace(AT, "soon") + "}", "ISO 8601"),
        (GOOD.replace(URL, "http://10.0.0.1/") + "}", "EGRESS_ALLOW"),
    ],
)
def test_unpack_line_refuses_an_invalid_line_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises((ValueError, msgspec.MsgspecError, Invalid)) as caught:
        unpack_line(text.encode(), LOOPBACK)
    assert reason in str(caught.value)


def test_unpack_original_keeps_payload_and_instant() -> None:
    value = (
        f'{{"scheduleTo": "2027-01-15T05:00:00", "payload": {{"n": 1.0}}, "webhookUrl": "{URL}",'
    )
    found = unpack_original("m", (value + '"x": 1}').encode(), "America/Sao_Paulo", LOOPBACK)
    assert (found.id, found.due_ms, found.scheduled_ms, found.created_ms) == ("m", NOW, NOW, None)
    assert found.accepted.spec.body == b'{"n": 1.0}'
    assert found.accepted.url.url == URL
