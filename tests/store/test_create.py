"""Create stores a message until it is due; an id stays taken while its message is pending."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import DuplicateMessage
from scheduler_api.domain.instant import format_instant
from scheduler_api.store.codec.record import from_ms, pack_tail
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.messages import NOTIFY_WITHIN
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.store.conftest import Published
from tests.support.factories import accepted
from tests.support.message_states import PENDING, bring, everything
from tests.support.store_clock import Clock

MINUTE = from_ms(NOW + 60_000)
REPEAT_WITHIN = 120_000  # ms, as in create.lua
SHOWN = {"parked": "scheduled"}  # where a message is → its state, if that is another word


async def refusal(store: Store, **fields: Any) -> DuplicateMessage:
    """How the id `a` is refused to another message."""
    with pytest.raises(DuplicateMessage) as refused:
        await store.messages.create("a", accepted(**fields))
    return refused.value


async def test_create_stores_a_message_until_it_is_due(store: Store) -> None:
    asked = accepted(scheduleTo=format_instant(MINUTE))
    assert await store.messages.create("a", asked) == MINUTE
    found = await store.messages.get("a")
    assert (found.state, found.next_attempt_at, found.scheduled_at) == ("scheduled", MINUTE, MINUTE)
    assert found.created_at == from_ms(NOW)


async def test_create_counts_a_delay_from_the_clock_of_the_store(
    store: Store, clock: Clock
) -> None:
    await clock.advance(1)
    at = await store.messages.create("a", accepted(delay="1m"))
    assert at == MINUTE + timedelta(milliseconds=1)


async def test_create_keeps_an_instant_in_the_past(store: Store) -> None:
    epoch = from_ms(0)
    assert await store.messages.create("a", accepted(scheduleTo="1970-01-01T00:00:00Z")) == epoch
    assert (await store.messages.get("a")).scheduled_at == epoch


async def test_create_accepts_the_last_instant_of_datetime(store: Store) -> None:
    last = from_ms(253_402_300_799_999)
    assert await store.messages.create("a", accepted(scheduleTo=format_instant(last))) == last
    assert (await store.messages.get("a")).scheduled_at == last


@pytest.mark.parametrize("url", ["http://127.0.0.1:3/other", "http://127.0.0.1:2/hook"])
@pytest.mark.parametrize("state", PENDING)
async def test_create_refuses_the_id_of_a_pending_message(
    store: Store, redis: Redis, state: str, url: str
) -> None:
    await bring(store, state)
    before = await everything(redis, store.keys[0])
    refused = await refusal(store, webhookUrl=url)
    assert refused.facts == {
        "state": SHOWN.get(state, state),
        "scheduledFor": format_instant(from_ms(NOW)),
    }
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.parametrize("state", FINISHED)
async def test_create_refuses_a_repeated_request_of_a_finished_message(
    store: Store, redis: Redis, state: str
) -> None:
    at = format_instant(from_ms(NOW))
    await bring(store, state, scheduleTo=at, payload={"a": 1})
    before = await everything(redis, store.keys[0])
    refused = await refusal(store, scheduleTo=at, payload={"a": 1})
    assert refused.facts == {"state": state, "scheduledFor": at}
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.parametrize("state", FINISHED)
async def test_create_refuses_a_repeated_delay_for_two_minutes(
    store: Store, clock: Clock, state: str
) -> None:
    await bring(store, state, delay=0)
    await clock.advance(REPEAT_WITHIN)
    refused = await refusal(store, delay=0)
    assert refused.facts["scheduledFor"] == format_instant(from_ms(NOW))
    await clock.advance(1)
    at = from_ms(NOW + REPEAT_WITHIN + 1)
    assert await store.messages.create("a", accepted(delay=0)) == at
    assert (await store.messages.get("a")).attempts == []


async def test_create_refuses_a_repeated_instant_after_two_minutes_too(
    store: Store, clock: Clock
) -> None:
    at = format_instant(from_ms(NOW))
    await bring(store, "delivered", scheduleTo=at)
    await clock.advance(10 * REPEAT_WITHIN)
    assert (await refusal(store, scheduleTo=at)).facts["state"] == "delivered"


async def test_create_refuses_a_repeated_delay_of_a_pending_message_after_two_minutes_too(
    store: Store, clock: Clock
) -> None:
    await store.messages.create("a", accepted(delay="1h"))
    await clock.advance(10 * REPEAT_WITHIN)
    assert (await refusal(store, delay="1h")).facts["state"] == "scheduled"


@pytest.mark.parametrize(
    "other",
    [
        {"payload": {"a": 2}},
        {"payload": {"a": 1}, "method": "PUT"},
        {"payload": {"a": 1}, "webhookUrl": "http://127.0.0.1:2/other"},
        {"payload": {"a": 1}, "delay": "1s"},
        {"payload": {"a": 1}, "scheduleTo": "2027-01-15T08:00:00Z"},
    ],
)
@pytest.mark.parametrize("state", FINISHED)
async def test_create_accepts_another_request_with_the_id_of_a_finished_message(
    store: Store, state: str, other: dict[str, Any]
) -> None:
    await bring(store, state, payload={"a": 1}, delay=0)
    await store.messages.create("a", accepted(**other))
    found = await store.messages.get("a")
    assert (found.state, found.attempts_made, found.attempts) == ("scheduled", 0, [])
    assert found.spec == accepted(**other).spec


async def test_create_accepts_another_instant_with_the_id_of_a_finished_message(
    store: Store,
) -> None:
    await bring(store, "delivered", scheduleTo=format_instant(from_ms(NOW)))
    assert await store.messages.create("a", accepted(scheduleTo=format_instant(MINUTE))) == MINUTE


async def test_create_stores_one_of_many_with_the_same_id_at_the_same_time(store: Store) -> None:
    calls = (store.messages.create("a", accepted(delay="1m")) for _ in range(50))
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results.count(MINUTE) == 1
    assert sum(isinstance(each, DuplicateMessage) for each in results) == 49
    assert await store.messages.count() == 1


async def test_create_answers_a_hundred_in_their_order(store: Store, scripts: Scripts) -> None:
    await bring(store, "retrying", "7")
    args: list[bytes | int] = [0]
    for number in range(100):
        args += (b"%d" % number, b"+%d" % (1000 - number), pack_tail(accepted()))
    now, _, *replies = await scripts.run("create", *args)
    assert now == NOW
    assert replies[::3] == [b"due" if number == 7 else b"ok" for number in range(100)]
    expected = [NOW if number == 7 else NOW + 1000 - number for number in range(100)]
    assert replies[1::3] == expected
    assert [counted != b"" for counted in replies[2::3]] == [n == 7 for n in range(100)]


async def test_create_announces_a_new_head_that_is_due_soon(
    store: Store, published: Published
) -> None:
    await store.messages.create("a", accepted(delay="30s"))
    assert await published() == [NOW + NOTIFY_WITHIN]


async def test_create_does_not_announce_a_head_that_is_due_late(
    store: Store, published: Published
) -> None:
    await store.messages.create("a", accepted(delay="30.001s"))
    assert await published() == []


@pytest.mark.parametrize("delay", ["10s", "11s"])
async def test_create_does_not_announce_a_message_after_the_head(
    store: Store, published: Published, delay: str
) -> None:
    await store.messages.create("a", accepted(delay="10s"))
    await published()
    await store.messages.create("b", accepted(delay=delay))
    assert await published() == []


async def test_create_announces_only_the_earliest_message_of_a_call(
    store: Store, published: Published
) -> None:
    delays = ["9s", "3s", "6s"]
    await asyncio.gather(*(store.messages.create(d, accepted(delay=d)) for d in delays))
    assert await published() == [NOW + 3_000]


async def test_create_does_not_announce_a_refused_message(
    store: Store, published: Published
) -> None:
    await bring(store, "delivering")
    await published()
    await refusal(store)
    assert await published() == []
