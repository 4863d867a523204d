"""List returns pending messages, soonest first; its pages stay right while messages change."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import Invalid
from scheduler_api.domain.message import Listed
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.support.factories import URL, accepted
from tests.support.message_states import RETRY_AFTER, bring, fill

MIB = 1024 * 1024


async def create(store: Store, *names: str, delay: int = 60) -> None:
    """Messages of these ids, due at one instant."""
    await asyncio.gather(*(store.messages.create(name, accepted(delay=delay)) for name in names))


async def listed(store: Store, limit: int = 1000) -> list[str]:
    """The ids, page by page."""
    page = await store.messages.list(limit, None)
    found = [row.id for row in page.rows]
    while page.cursor:
        page = await store.messages.list(limit, page.cursor)
        found += [row.id for row in page.rows]
    return found


async def test_list_of_an_empty_store_is_an_empty_page(store: Store) -> None:
    page = await store.messages.list(10, None)
    assert (page.rows, page.total, page.cursor) == ([], 0, None)
    assert await store.messages.count() == 0


async def test_list_returns_the_soonest_first(store: Store) -> None:
    for delay in (3, 1, 2):
        await create(store, str(delay), delay=delay)
    assert await listed(store) == ["1", "2", "3"]


async def test_list_returns_url_time_state_and_attempts(store: Store) -> None:
    await bring(store, "retrying")
    page = await store.messages.list(10, None)
    assert page.rows == [Listed("a", URL, "retrying", from_ms(NOW) + RETRY_AFTER, 1)]


async def test_list_orders_messages_of_one_instant_by_bytes_of_the_id(store: Store) -> None:
    names = ["b", "B", "é", "a", "aa", "a-", "Z", "~", "😀", "10", "9"]
    await create(store, *names)
    assert await listed(store, 2) == sorted(names, key=str.encode)


async def test_list_merges_leased_and_parked_messages_by_time(store: Store) -> None:
    await fill(store)
    await create(store, "a-parked", "z-parked", delay=0)
    await store.queues[0].claim(10)
    await create(store, "m-scheduled", delay=0)
    await create(store, "a-later", delay=1)
    page = await store.messages.list(100, None)
    states = {row.id: row.state for row in page.rows}
    in_flight = [f"in-flight-{number}" for number in range(CONCURRENCY)]
    assert list(states) == ["a-parked", *in_flight, "m-scheduled", "z-parked", "a-later"]
    assert {name for name, state in states.items() if state == "delivering"} == set(in_flight)
    assert page.total == len(states)


@pytest.mark.parametrize("state", FINISHED)
async def test_list_leaves_out_finished_messages(store: Store, state: str) -> None:
    await bring(store, state)
    assert await listed(store) == []
    assert await store.messages.count() == 0


@pytest.mark.parametrize("limit", [1, 3, 4, 7, 8])
async def test_list_returns_each_message_on_one_page(store: Store, limit: int) -> None:
    await fill(store)
    await create(store, "a", "b", "x")
    names = [f"in-flight-{number}" for number in range(CONCURRENCY)] + ["a", "b", "x"]
    assert await listed(store, limit) == names


async def test_list_page_with_all_messages_is_the_last(store: Store) -> None:
    await create(store, "a", "b")
    page = await store.messages.list(2, None)
    assert ([row.id for row in page.rows], page.cursor) == (["a", "b"], None)


async def test_list_page_may_be_longer_than_one_call_reads(store: Store) -> None:
    names = [f"{number:03}" for number in range(250)]
    await create(store, *names)
    page = await store.messages.list(240, None)
    assert [row.id for row in page.rows] == names[:240]
    assert page.total == 250
    last = await store.messages.list(240, page.cursor)
    assert [row.id for row in last.rows] == names[240:]


async def test_list_continues_after_messages_were_added_and_removed(store: Store) -> None:
    await create(store, "b", "d", "f", "h")
    page = await store.messages.list(2, None)
    assert [row.id for row in page.rows] == ["b", "d"]
    await store.messages.cancel("d")  # the row that the cursor names
    await store.messages.cancel("f")
    await create(store, "a", "c", "e", "g")
    rest = await store.messages.list(10, page.cursor)
    assert [row.id for row in rest.rows] == ["e", "g", "h"]


async def test_list_continues_after_messages_were_claimed_and_parked(store: Store) -> None:
    names = [f"{number}" for number in range(CONCURRENCY + 3)]
    await create(store, *names, delay=0)
    page = await store.messages.list(2, None)
    await store.queues[0].claim(100)
    rest = await store.messages.list(100, page.cursor)
    assert [row.id for row in rest.rows] == names[2:]


async def test_list_after_the_last_message_is_an_empty_page(store: Store) -> None:
    await create(store, "a", "b")
    page = await store.messages.list(1, None)
    await store.messages.cancel("b")
    rest = await store.messages.list(1, page.cursor)
    assert (rest.rows, rest.total, rest.cursor) == ([], 1, None)


async def test_list_refuses_an_invalid_cursor(store: Store) -> None:
    with pytest.raises(Invalid):
        await store.messages.list(1, "!")


async def test_list_returns_all_large_records_in_short_reads(
    store: Store, scripts: Scripts
) -> None:
    names = [f"{number}" for number in range(6)]
    for name in names:
        await store.messages.create(name, accepted(delay=60, payload="x" * MIB))
    _, more, *reply = await scripts.run("list", -1, b"", 100)
    assert (more, len(reply) // 5) == (1, 4)
    assert await listed(store) == names
    await asyncio.gather(*(store.messages.cancel(name) for name in names))


async def test_list_leaves_out_a_message_without_a_record_and_no_other(
    store: Store, redis: Redis
) -> None:
    await create(store, "a", "b", "c")
    record = await redis.hget(f"{store.keys[0].base}payloads", "b")
    await redis.hdel(f"{store.keys[0].base}payloads", "b")
    assert await listed(store, 1) == ["a", "c"]
    await redis.hset(f"{store.keys[0].base}payloads", "b", record)
