"""The list of destinations: bounded pages, each destination once, for any data."""

import base64
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Destination, Limits
from scheduler_api.domain.errors import Invalid
from scheduler_api.store import destinations
from scheduler_api.store.destinations import READ_BATCH
from scheduler_api.store.store import Store
from tests.support.factories import accepted
from tests.support.valkey import client
from tests.support.work_counter import Commands

MANY = 1_500  # more than a server keeps in one piece
PAUSED = b"0 0 1 [null,null,true]"


@pytest.fixture
async def full_store(own_redis: Redis) -> Store:
    """Of two partitions: some with load here and there, many with settings, some with both."""
    store = Store(own_redis, partitions=2, concurrency=2)
    await store.check_all()
    for number in range(40):
        url = f"http://busy-{number % 20}.example/"
        await store.messages.create(f"m{number}", accepted(webhookUrl=url))
    for number in range(9):
        await store.messages.create(f"w{number}", accepted(webhookUrl="http://full.example/"))
    for queue in store.queues:
        await queue.claim(100)
    names = [f"quiet-{number}.example" for number in range(MANY)] + ["busy-0.example"]
    for keys in store.keys:
        await own_redis.hset(f"{keys.base}limits", mapping=dict.fromkeys(names, PAUSED))
    return store


EXPECTED = {f"busy-{n}.example" for n in range(20)} | {"full.example"}
EXPECTED |= {f"quiet-{n}.example" for n in range(MANY)}


async def pages(store: Store, limit: int) -> AsyncIterator[list[Destination]]:
    cursor = None
    while True:
        page = await store.destinations.list(limit, cursor)
        assert len(page.rows) <= limit
        yield page.rows
        cursor = page.cursor
        if cursor is None:
            return


@pytest.mark.parametrize("limit", [37, 100, 1_000])
async def test_list_destinations_returns_each_once_those_with_load_and_without_settings_first(
    full_store: Store, limit: int
) -> None:
    found = [page async for page in pages(full_store, limit)]
    rows = [row for page in found for row in page]
    names = [row.name for row in rows]
    assert sorted(names) == sorted(EXPECTED)
    assert sum(row.limits is None for row in found[0]) == 20  # all of them
    for page in found:
        load = [row.in_flight + row.waiting for row in page]
        assert load == sorted(load, reverse=True)
    (busiest,) = (row for row in rows if row.name == "full.example")
    assert (busiest.in_flight, busiest.waiting) == (2, 7)


async def test_list_destinations_continues_inside_a_step_of_the_server(store: Store) -> None:
    names = [f"h{number}.example" for number in range(7)]
    for name in names:
        await store.destinations.set_limit(name, Limits(1))
    found = [row.name async for page in pages(store, 1) for row in page]
    assert found == names


async def test_list_destinations_costs_the_same_for_any_number_of_destinations(
    full_store: Store, own_redis: Redis
) -> None:
    address = f"unix://{own_redis.connection_pool.connection_kwargs['path']}"
    async with client(address) as counting:
        commands, costs = Commands(counting), []
        for number in (0, 20_000):
            more = [it for n in range(number) for it in (f"more-{n}.example", PAUSED)]
            for keys in full_store.keys if more else ():
                await own_redis.hset(f"{keys.base}limits", items=more)
            await commands.forget()
            page = await full_store.destinations.list(READ_BATCH)
            found = await commands.since()
            assert page.cursor
            assert not found["hkeys"] + found["hgetall"] + found["smembers"] + found["hvals"]
            costs.append(found.total())
    assert costs[1] <= costs[0] * 1.2
    assert costs[1] < 30 * READ_BATCH


async def test_list_destinations_ends_a_page_on_which_no_read_destination_belongs(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(destinations, "READ_FOR_A_PAGE", 200)
    base = store.keys[0].base
    names = [f"h{number}.example" for number in range(900)]
    await redis.sadd(f"{base}parking", *names)  # of a damaged data set: nothing is parked
    await store.destinations.set_limit("last.example", Limits(1))
    page = await store.destinations.list(1_000)
    assert (page.rows, page.total) == ([], None)
    assert page.cursor
    rows = [row.name async for page in pages(store, 1_000) for row in page]
    assert rows == ["last.example"]
    await redis.delete(f"{base}parking")


async def test_list_destinations_shows_one_that_got_load_after_its_place_was_read(
    store: Store,
) -> None:
    await store.messages.create("a", accepted(webhookUrl="http://a.example/"))
    await store.queues[0].claim(1)
    first = await store.destinations.list(1)
    assert [row.name for row in first.rows] == ["a.example"]
    await store.destinations.set_limit("b.example", Limits(1))
    second = await store.destinations.list(1, first.cursor)
    assert [row.name for row in second.rows] == ["b.example"]


async def test_list_destinations_shows_one_in_two_places_once(store: Store) -> None:
    for host in ("a", "b"):
        for number in range(6):
            url = f"http://{host}.example/"
            await store.messages.create(f"{host}{number}", accepted(webhookUrl=url))
    await store.queues[0].claim(100)
    rows = [row.name async for page in pages(store, 1) for row in page]
    assert rows == ["a.example", "b.example"]


def packed(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    ["x", "é", *map(packed, ("0", "0:0", "3:0:", "x:0:", f"0:{1 << 64}:", "0:-1:", "-1:0:"))],
)
async def test_list_destinations_refuses_an_invalid_cursor(store: Store, cursor: str) -> None:
    with pytest.raises(Invalid) as refused:
        await store.destinations.list(10, cursor)
    assert [error.path for error in refused.value.errors] == ["?cursor"]


@pytest.mark.parametrize("cursor", ["2:0:", f"0:{(1 << 64) - 1}:z", "1:7:a.example"])
async def test_list_destinations_accepts_a_cursor_of_the_right_form_that_it_never_made(
    store: Store, cursor: str
) -> None:
    assert (await store.destinations.list(10, packed(cursor))).rows == []
