"""Cancel removes a message that waits, and no leased or finished one."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import (
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    SchedulerError,
)
from scheduler_api.store.store import Store
from tests.support.factories import accepted
from tests.support.message_states import bring, everything, fill, outcome


@pytest.mark.parametrize("state", ["scheduled", "retrying", "parked"])
async def test_cancel_removes_a_waiting_message_and_frees_its_id(store: Store, state: str) -> None:
    await bring(store, state)
    await store.messages.cancel("a")
    with pytest.raises(MessageNotFound):
        await store.messages.get("a")
    await store.messages.create("a", accepted(delay="1m"))
    assert (await store.messages.get("a")).attempts_made == 0


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("delivering", MessageInFlight),
        ("delivered", MessageFinished),
        ("failed", MessageFinished),
    ],
)
async def test_cancel_refuses_a_leased_or_finished_message(
    store: Store, redis: Redis, state: str, error: type[SchedulerError]
) -> None:
    await bring(store, state)
    before = await everything(redis, store.keys[0])
    with pytest.raises(error):
        await store.messages.cancel("a")
    assert await everything(redis, store.keys[0]) == before


async def test_cancel_of_an_unknown_id_is_not_found(store: Store, redis: Redis) -> None:
    await bring(store, "scheduled", "b")
    before = await everything(redis, store.keys[0])
    with pytest.raises(MessageNotFound):
        await store.messages.cancel("a")
    assert await everything(redis, store.keys[0]) == before


async def test_cancel_succeeds_once_of_many_calls_at_the_same_time(store: Store) -> None:
    await bring(store, "scheduled")
    results = await asyncio.gather(
        *(store.messages.cancel("a") for _ in range(20)), return_exceptions=True
    )
    assert results.count(None) == 1
    assert sum(isinstance(each, MessageNotFound) for each in results) == 19


async def test_cancel_of_the_last_parked_message_leaves_no_key(store: Store, redis: Redis) -> None:
    await bring(store, "parked")
    await store.messages.cancel("a")
    assert not [key async for key in redis.scan_iter(f"{store.keys[0].base}parked:*")]


async def test_cancel_of_an_unparked_message_strands_no_other(
    store: Store,
) -> None:
    claims = await fill(store)
    for name in ("first", "second", "third"):
        await store.messages.create(name, accepted())
    await store.queues[0].claim(10)  # parks them
    await store.queues[0].settle(outcome(claims[0]))  # its slot is handed to the first
    await store.messages.cancel("first")
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["second"]
