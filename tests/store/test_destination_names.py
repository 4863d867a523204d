"""One receiver is one destination, for every spelling of its URL, in every script and call."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Hold, Limits
from scheduler_api.domain.errors import DestinationNotFound
from scheduler_api.domain.url import destination_name, parse_destination, parse_url
from scheduler_api.store.codec.record import destination_of, pack_tail
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.support.factories import accepted
from tests.support.message_states import outcome

NAME = "h.example"
SPELLINGS = (
    *("http://h.example/", "http://h.example:80/", "https://h.example/x", "https://h.example:443"),
    *("http://H.Example./", "https://h.example.:443/", "http://h.EXAMPLE:443/?q"),
)
OTHERS = ("http://h.example:8080/", "http://h.example.org/", "http://hh.example/")
PAUSED = b"0 0 1 [null,null,true]"


async def create(store: Store, *urls: str) -> None:
    for number, url in enumerate(urls):
        await store.messages.create(f"m{number}", accepted(webhookUrl=url))


@pytest.mark.parametrize(
    ("spelled", "name"),
    [
        *((text, "h") for text in ("h", "H", "h.", "h:80", "h:443", "h.:80", "H.:443")),
        *((text, "h:81") for text in ("h:81", "h.:81", "H:81")),
        *((text, "[2606:4700::1111]") for text in ("[2606:4700:0:0:0:0:0:1111]:80",)),
        *((text, "[2606:4700::1111]") for text in ("[2606:4700::1111]", "[2606:4700:0::1111]:443")),
        *((text, "[2606:4700::abcd]:8080") for text in ("[2606:4700::ABCD]:8080",)),
        *((text, "8.8.8.8") for text in ("8.8.8.8", "8.8.8.8:80", "8.8.8.8:443")),
        ("8.8.8.8:5678", "8.8.8.8:5678"),
    ],
)
async def test_destination_name_is_the_same_for_all_spellings_in_python_and_lua(
    store: Store, spelled: str, name: str
) -> None:
    assert parse_destination(spelled) == name
    assert destination_name(name) == name
    for scheme in ("http", "https"):
        url = f"{scheme}://{spelled}/"
        assert destination_name(parse_url(url).authority) == name
        new = accepted(webhookUrl=url)
        assert destination_of(bytes(13) + pack_tail(new)).decode() == name
        await store.messages.create(scheme, new)
    (first, second) = (await store.queues[0].claim(2)).messages
    (found,) = (await store.destinations.list(10)).rows
    assert (found.name, found.in_flight) == (name, 2)
    await store.queues[0].release([first, second])


def test_destination_name_returns_text_that_is_no_authority_unchanged() -> None:
    assert destination_name("a\nb") == "a\nb"


@pytest.mark.parametrize("record", [b"", b"\1", bytes(22), bytes(23), bytes(21) + b"\7\3h x/"])
def test_destination_of_bytes_that_are_no_record_is_a_question_mark(record: bytes) -> None:
    assert destination_of(record) == b"?"


async def test_claim_keeps_a_limit_for_all_spellings_of_a_host_together(store: Store) -> None:
    await create(store, *SPELLINGS, *OTHERS)
    messages = (await store.queues[0].claim(100)).messages
    assert len(messages) == CONCURRENCY + len(OTHERS)
    found = await store.destinations.get(NAME)
    assert (found.in_flight, found.waiting) == (CONCURRENCY, len(SPELLINGS) - CONCURRENCY)
    for _ in range(2):
        settling = (store.queues[0].settle(outcome(one)) for one in messages)
        assert all(await asyncio.gather(*settling))
        messages = (await store.queues[0].claim(100)).messages
    assert len((await store.destinations.get(NAME)).stats.durations) == 1


async def test_claim_returns_no_message_of_any_spelling_of_a_paused_host(store: Store) -> None:
    await store.destinations.set_limit(NAME, Limits(paused=True))
    await create(store, *SPELLINGS)
    assert not (await store.queues[0].claim(100)).messages
    assert (await store.messages.get("m4")).hold == Hold("paused", None)
    await store.messages.cancel("m4")
    assert (await store.destinations.get(NAME)).waiting == len(SPELLINGS) - 1


async def test_get_returns_the_url_as_it_was_requested(store: Store) -> None:
    await create(store, "http://h.example.:80/a")
    assert (await store.messages.get("m0")).url == "http://h.example.:80/a"


# Settings that an earlier version stored under another spelling.


@pytest.mark.parametrize("old", ["h.example:80", "h.example:443", "h.example.", "h.example.:80"])
async def test_claim_uses_settings_under_an_earlier_spelling_until_they_are_replaced(
    store: Store, redis: Redis, old: str
) -> None:
    limits = f"{store.keys[0].base}limits"
    await redis.hset(limits, old, PAUSED)
    await create(store, *SPELLINGS)
    assert not (await store.queues[0].claim(100)).messages
    assert (await store.destinations.get(NAME)).limits == Limits(paused=True)
    (shown,) = (await store.destinations.list(10)).rows
    assert (shown.name, shown.limits) == (NAME, Limits(paused=True))
    await store.destinations.set_limit(NAME, Limits(concurrency=2))
    assert await redis.hkeys(limits) == [NAME.encode()]
    assert len((await store.queues[0].claim(100)).messages) == 2


async def test_set_limit_to_none_deletes_settings_under_earlier_spellings(
    store: Store, redis: Redis
) -> None:
    limits = f"{store.keys[0].base}limits"
    await redis.hset(limits, mapping={"h.example:80": PAUSED, "h.example.:443": PAUSED})
    await store.destinations.set_limit(NAME, None)
    assert not await redis.exists(limits)
    with pytest.raises(DestinationNotFound):
        await store.destinations.get(NAME)


async def test_list_destinations_shows_two_spellings_with_settings_once_by_name(
    store: Store, redis: Redis
) -> None:
    limits = f"{store.keys[0].base}limits"
    await redis.hset(limits, mapping={"h.example:80": PAUSED, "h.example:443": PAUSED})
    await store.destinations.set_limit("h.example:8080", Limits(3))
    await redis.hset(limits, mapping={"h.example.:8080": PAUSED})
    rows, cursor = [], None
    while True:
        page = await store.destinations.list(1, cursor)
        rows += [(row.name, row.limits) for row in page.rows]
        cursor = page.cursor
        if cursor is None:
            break
    assert rows == [(NAME, Limits(paused=True)), ("h.example:8080", Limits(3))]


async def test_claim_returns_messages_parked_under_an_earlier_spelling(
    store: Store, redis: Redis
) -> None:
    await create(store, "http://h.example:80/")
    base = store.keys[0].base
    due = await redis.zscore(f"{base}due", "m0")
    await redis.zrem(f"{base}due", "m0")  # as an earlier version parked it
    await redis.zadd(f"{base}taken", {"m0": due or 0})
    await redis.zadd(f"{base}parked:h.example:80", {"m0": due or 0})
    await redis.sadd(f"{base}parking", "h.example:80")
    assert await store.queues[0].sweep() == 1
    (claimed,) = (await store.queues[0].claim(1)).messages
    assert await store.queues[0].settle(outcome(claimed))
    assert (await store.destinations.get(NAME)).stats.delivered == 1
