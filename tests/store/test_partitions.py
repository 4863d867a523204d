"""Data in several partitions: where a message is, one merged list, the mark of their number."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from scheduler_api.domain.destination import Hold, Limits, Rate
from scheduler_api.domain.errors import (
    DuplicateMessage,
    MessageNotFound,
    OtherPartitions,
    SchemaTooNew,
)
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.keys import SCHEMA, SLOTS, Keys, partition_of, tag
from scheduler_api.store.store import Store
from tests.support import invariants
from tests.support.factories import accepted

PARTITIONS = 3
LATER = "2100-01-01T00:00:00Z"
HERE = "127.0.0.1:2"  # the destination of the factories' messages


@pytest.fixture
async def divided(redis: Redis, prefix: str) -> AsyncIterator[Store]:
    """A store of three partitions, on the server's clock; the invariants of each hold."""
    store = Store(redis, prefix=prefix, partitions=PARTITIONS, concurrency=PARTITIONS)
    yield store
    for keys in store.keys:
        await invariants.check(redis, keys, 1)


async def listed(store: Store, limit: int) -> list[str]:
    """Every pending id, page by page."""
    ids: list[str] = []
    cursor = None
    while True:
        page = await store.messages.list(limit, cursor)
        assert len(page.rows) <= limit
        ids += [row.id for row in page.rows]
        cursor = page.cursor
        if cursor is None:
            return ids


def test_partition_of_an_id_is_its_checksum_of_redis_cluster() -> None:
    for number in range(100):
        message_id = b"message-%d" % number
        assert partition_of(message_id, 16) == key_slot(message_id) % 16
        assert partition_of(message_id, 1) == 0


@pytest.mark.parametrize(
    ("message_id", "routing_key"),
    [
        (b"a@b", b"a"),
        (b"a@", b"a"),
        (b"a@b@c", b"a"),
        (b"a", b"a"),
        (b"@a", b"@a"),
        (b"@a@b", b"@a@b"),
        (b"@", b"@"),
    ],
)
def test_partition_of_an_id_is_that_of_what_stands_before_its_first_at_sign(
    message_id: bytes, routing_key: bytes
) -> None:
    assert partition_of(message_id, 4096) == key_slot(routing_key) % 4096


def test_tag_of_partition_0_is_the_same_for_any_number_of_partitions() -> None:
    assert Keys("p").base == "p:{0}:"
    assert len({tag(partition) for partition in range(256)}) == 256


@pytest.mark.parametrize("nodes", [3, 4, 5])
@pytest.mark.parametrize("partitions", [16, 32, 64])
def test_tag_spreads_partitions_evenly_over_the_nodes(nodes: int, partitions: int) -> None:
    slots = [key_slot(b"%d" % tag(partition)) for partition in range(partitions)]
    shares = Counter(slot * nodes // SLOTS for slot in slots)
    assert len(shares) == nodes
    assert max(shares.values()) - min(shares.values()) <= 2


async def test_create_stores_each_message_in_its_partition(divided: Store, redis: Redis) -> None:
    for number in range(30):
        await divided.messages.create(f"m{number}", accepted(scheduleTo=LATER))
    for partition, keys in enumerate(divided.keys):
        found: Any = await redis.zrange(f"{keys.base}due", 0, -1)
        assert found
        assert {partition_of(message_id, PARTITIONS) for message_id in found} == {partition}


async def test_get_and_cancel_find_a_message_in_its_partition(divided: Store) -> None:
    ids = [f"m{number}" for number in range(10)]
    for message_id in ids:
        await divided.messages.create(message_id, accepted(scheduleTo=LATER))
        with pytest.raises(DuplicateMessage):
            await divided.messages.create(message_id, accepted(scheduleTo=LATER))
    assert await divided.messages.count() == 10
    for message_id in ids:
        assert (await divided.messages.get(message_id)).id == message_id
        await divided.messages.cancel(message_id)
        with pytest.raises(MessageNotFound):
            await divided.messages.get(message_id)
    assert await divided.messages.count() == 0


@pytest.mark.parametrize("limit", [1, 7, 100, 1000])
async def test_list_merges_the_partitions_in_order_of_time_then_id(
    divided: Store, limit: int
) -> None:
    wanted = []
    for number in range(150):
        at = f"2100-01-01T00:00:{number * 7 % 30:02}Z"
        await divided.messages.create(f"m{number:03}", accepted(scheduleTo=at))
        wanted.append((at, f"m{number:03}"))
    assert await listed(divided, limit) == [message_id for _, message_id in sorted(wanted)]
    assert (await divided.messages.list(limit, None)).total == 150


async def test_list_continues_if_one_partition_has_most_messages(divided: Store) -> None:
    crowd = [f"m{number}" for number in range(1000) if partition_of(b"m%d" % number, 3) == 1]
    for message_id in crowd:
        await divided.messages.create(message_id, accepted(scheduleTo=LATER))
    await divided.messages.create("last", accepted(scheduleTo="2100-01-02T00:00:00Z"))
    assert len(crowd) > 250
    assert await listed(divided, 1000) == [*sorted(crowd), "last"]


async def test_list_without_messages_has_no_next_page(divided: Store) -> None:
    page = await divided.messages.list(100, None)
    assert (page.rows, page.total, page.cursor) == ([], 0, None)


async def test_claim_divides_the_limit_of_a_destination_among_partitions(
    divided: Store, redis: Redis, prefix: str
) -> None:
    for number in range(30):
        await divided.messages.create(f"m{number}", accepted())
    claims = [await queue.claim(10) for queue in divided.queues]
    assert [len(claim.messages) for claim in claims] == [1, 1, 1]
    uneven = Store(redis, prefix=f"{prefix}-5", partitions=PARTITIONS, concurrency=5)
    for number in range(30):
        await uneven.messages.create(f"m{number}", accepted())
    claims = [await queue.claim(10) for queue in uneven.queues]
    assert [len(claim.messages) for claim in claims] == [2, 2, 1]


async def test_claim_returns_one_message_in_each_partition_even_if_the_limit_is_lower(
    redis: Redis, prefix: str
) -> None:
    store = Store(redis, prefix=prefix, partitions=PARTITIONS, concurrency=1)
    for number in range(30):
        await store.messages.create(f"m{number}", accepted())
    claims = [await queue.claim(10) for queue in store.queues]
    assert [len(claim.messages) for claim in claims] == [1, 1, 1]


@pytest.mark.parametrize(("made", "asked"), [(3, 1), (1, 3), (16, 4)])
async def test_check_refuses_another_number_of_partitions_than_that_of_the_data(
    redis: Redis, prefix: str, made: int, asked: int
) -> None:
    await Store(redis, prefix=prefix, partitions=made).check()
    await Store(redis, prefix=prefix, partitions=made).check()
    with pytest.raises(OtherPartitions) as refused:
        await Store(redis, prefix=prefix, partitions=asked).check()
    assert f"PARTITIONS={asked} does not match" in str(refused.value)
    assert f"set PARTITIONS={made}" in str(refused.value)


async def test_check_marks_each_partition_separately(divided: Store, redis: Redis) -> None:
    await divided.check()
    await divided.check(2)
    await redis.hset(divided.keys[2].meta, "schema", "999")
    await divided.check()
    with pytest.raises(SchemaTooNew):
        await divided.check(2)
    assert not await redis.exists(divided.keys[1].meta)


async def test_check_all_marks_all_partitions(divided: Store, redis: Redis) -> None:
    await divided.check_all()
    marks = [await redis.hget(keys.meta, "schema") for keys in divided.keys]
    assert marks == [str(SCHEMA).encode()] * len(divided.keys)


async def test_check_all_leaves_data_with_another_number_of_partitions_unchanged(
    divided: Store, redis: Redis, prefix: str
) -> None:
    await divided.check()
    await redis.hdel(divided.keys[0].meta, "schema")
    with pytest.raises(OtherPartitions):
        await Store(redis, prefix=prefix, partitions=len(divided.keys) + 1).check_all()
    assert await redis.hget(divided.keys[0].meta, "schema") is None


async def due_everywhere(store: Store) -> None:
    """In each partition some messages to one destination, claimed as far as it may get them."""
    for number in range(30):
        await store.messages.create(f"m{number}", accepted())
    for queue in store.queues:
        assert (await queue.claim(100)).messages


async def test_list_destinations_adds_the_load_of_all_partitions(divided: Store) -> None:
    await due_everywhere(divided)
    (found,) = (await divided.destinations.list(10)).rows
    assert (found.in_flight, found.waiting) == (PARTITIONS, 30 - PARTITIONS)
    assert found.hold == Hold("full", None)
    assert await divided.destinations.get(HERE) == found


async def test_get_destination_has_no_hold_if_one_partition_may_send(
    divided: Store,
) -> None:
    for number in range(3):
        await divided.messages.create(f"m{number}", accepted())
    await divided.queues[partition_of(b"m0", PARTITIONS)].claim(100)
    found = await divided.destinations.get(HERE)
    assert found.in_flight == 1
    assert found.hold is None


async def test_get_destination_returns_the_time_at_which_the_first_partition_may_send(
    divided: Store, redis: Redis
) -> None:
    await divided.destinations.set_limit(HERE, Limits(30, Rate(PARTITIONS, "h")))
    await due_everywhere(divided)
    opens = [await redis.zscore(f"{keys.base}opens", HERE) or 0 for keys in divided.keys]
    found = await divided.destinations.get(HERE)
    assert found.hold == Hold("rate", from_ms(int(min(opens))))
    assert (found.in_flight, found.waiting) == (PARTITIONS, 30 - PARTITIONS)
