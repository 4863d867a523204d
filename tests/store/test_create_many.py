"""Create many does for each message of a batch what create does for one."""

import asyncio
import signal
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import (
    DuplicateMessage,
    StoreFull,
    StoreUnavailable,
)
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.messages import CREATE_BATCH, Stored
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.store.conftest import Published
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import PENDING, bring
from tests.support.valkey import client, valkey_server
from tests.support.waiting import wait_until

PARTITIONS = 3
LATER = "2100-01-01T00:00:00Z"


async def test_create_many_stores_each_and_answers_in_order(store: Store) -> None:
    count = 2 * CREATE_BATCH + 1
    delays = [1 + number * 7 % count for number in range(count)]
    batch = [(f"m-{delay}", accepted(delay=delay)) for delay in delays]
    stored = await store.messages.create_many(batch)
    assert [milliseconds(one) for one in stored] == [NOW + 1000 * delay for delay in delays]
    page = await store.messages.list(1000, None)
    assert [row.id for row in page.rows] == [f"m-{delay}" for delay in sorted(delays)]


async def test_create_many_of_none_returns_none(store: Store) -> None:
    assert await store.messages.create_many([]) == []
    assert await store.messages.count() == 0


@pytest.mark.parametrize("apart", [1, CREATE_BATCH])
async def test_create_many_stores_the_first_of_two_with_the_same_id(
    store: Store, apart: int
) -> None:
    batch = [(str(number), accepted(delay=1)) for number in range(apart)]
    batch.append(("0", accepted(delay=2)))
    first, *_, second = await store.messages.create_many(batch)
    assert milliseconds(first) == NOW + 1000
    assert isinstance(second, DuplicateMessage)
    assert (await store.messages.get("0")).spec.delay == 1
    assert await store.messages.count() == apart


@pytest.mark.parametrize("state", FINISHED)
async def test_create_many_replaces_a_finished_message_by_the_first_of_two(
    store: Store, state: str
) -> None:
    await bring(store, state)
    batch = [("a", accepted(delay=1)), ("b", accepted()), ("a", accepted(delay=2))]
    first, _, second = await store.messages.create_many(batch)
    assert milliseconds(first) == NOW + 1000
    assert isinstance(second, DuplicateMessage)
    assert second.facts["state"] == "scheduled"
    found = await store.messages.get("a")
    assert (found.state, found.attempts_made) == ("scheduled", 0)
    assert await store.messages.count() == 2


@pytest.mark.parametrize("state", [*PENDING, *FINISHED])
async def test_create_many_refuses_a_taken_id_and_stores_the_others(
    store: Store, state: str
) -> None:
    await bring(store, state)
    before = (await store.messages.get("a")).state
    batch = [(message_id, accepted()) for message_id in ("b", "a", "c")]
    stored = await store.messages.create_many(batch)
    assert [type(one) for one in stored] == [datetime, DuplicateMessage, datetime]
    assert isinstance(stored[1], DuplicateMessage)
    assert stored[1].facts["state"] == before


async def test_create_many_announces_a_new_head_once_a_call(
    store: Store, published: Published
) -> None:
    batch = [(str(number), accepted(delay=10)) for number in range(CREATE_BATCH)]
    await store.messages.create_many(batch)
    assert await published() == [NOW + 10_000]


async def test_create_many_divides_messages_among_partitions_and_keeps_the_order(
    redis: Redis, prefix: str
) -> None:
    store = Store(redis, prefix=prefix, partitions=PARTITIONS)
    count = 3 * CREATE_BATCH
    batch = [(str(number), accepted(scheduleTo=LATER)) for number in range(count)]
    batch.insert(count // 2, ("0", accepted(scheduleTo=LATER)))
    stored = await store.messages.create_many(batch)
    refused = [place for place, one in enumerate(stored) if isinstance(one, DuplicateMessage)]
    assert refused == [count // 2]
    for keys in store.keys:
        assert await redis.zcard(f"{keys.base}due") > CREATE_BATCH // 2
        await invariants.check(redis, keys, 1)
    assert await store.messages.count() == count


async def test_create_many_calls_an_unavailable_store_once(absent: Store) -> None:
    count = 2 * CREATE_BATCH
    stored = await absent.messages.create_many([(str(n), accepted()) for n in range(count)])
    assert [type(one) for one in stored] == [StoreUnavailable] * count
    assert len(set(map(id, stored))) == 1


async def test_create_many_reports_what_a_store_that_filled_up_has_stored(
    own_store: Store, own_redis: Redis
) -> None:
    await own_store.check()
    used = (await own_redis.info("memory"))["used_memory"]
    await own_redis.config_set("maxmemory", used + 4 * 1024 * 1024)
    batch = [(str(n), accepted(scheduleTo=LATER, payload="x" * 10_000)) for n in range(1000)]
    stored = await own_store.messages.create_many(batch)
    there = [isinstance(one, datetime) for one in stored]
    created = sum(there)
    assert 0 < created < len(batch)
    assert there == [True] * created + [False] * (len(batch) - created)
    assert {type(one) for one in stored[created:]} == {StoreFull}
    assert await own_store.messages.count() == created


async def test_create_many_loses_no_reported_message_when_the_store_is_killed(
    tmp_path: Path,
) -> None:
    count = 200 * CREATE_BATCH
    asked = accepted(scheduleTo=LATER)
    config = ("appendonly yes", "appendfsync always")
    async with valkey_server(tmp_path, *config) as server, client(server.address) as redis:
        store = Store(redis)
        batch = [(str(number), asked) for number in range(count)]
        creating = asyncio.create_task(store.messages.create_many(batch))
        await wait_until("some are stored", partial(any_stored, store))
        await server.stop(signal.SIGKILL)
        stored = await creating
        await server.start()
        numbers = [number for number, one in enumerate(stored) if isinstance(one, datetime)]
        assert 0 < len(numbers) < count
        for number in numbers:
            assert (await store.messages.get(str(number))).state == "scheduled"
        # The call that the kill cut off may have run: its answer was "unknown, repeating is safe".
        assert len(numbers) <= await store.messages.count() <= len(numbers) + CREATE_BATCH


async def any_stored(store: Store) -> bool:
    return await store.messages.count() > 0


def milliseconds(stored: Stored) -> int:
    assert isinstance(stored, datetime), stored
    return round(stored.timestamp() * 1000)
