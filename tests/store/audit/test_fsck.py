"""Fsck finds each possible damage of the keys, reports it once, and repairs it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.audit.fsck import STEP
from scheduler_api.store.audit.invariants import Finding
from scheduler_api.store.connection.client import connect
from scheduler_api.store.store import Store
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import outcome

HOST = b"127.0.0.1:2"
LIMIT = 64  # of a destination
LATE = 1_900_000_000_000  # ms; long after now

Damage = Callable[[Redis, str], Awaitable[Any]]


async def checked(store: Store, *, repair: bool = False) -> list[Finding]:
    return [
        one
        for partition in range(len(store.keys))
        async for one in store.fsck(partition).run(repair=repair)
    ]


async def findings(store: Store) -> list[tuple[str, bytes]]:
    return sorted((one.rule, one.subject) for one in await checked(store))


@pytest.fixture
async def sound(redis: Redis, prefix: str) -> AsyncIterator[Store]:
    """A message in each place: one waits, some are in flight, one parked, two finished."""
    store = Store(redis, prefix=prefix, lease=timedelta(minutes=1), concurrency=LIMIT)
    messages, queue = store.messages, store.queues[0]
    await messages.create("good", accepted())
    await queue.settle(outcome((await queue.claim(1)).messages[0], "delivered"))
    await messages.create("bad", accepted())
    await queue.settle(outcome((await queue.claim(1)).messages[0], "failed"))
    for number in range(LIMIT):
        await messages.create(f"flies-{number:02}", accepted())
    await queue.claim(LIMIT)
    await messages.create("parked", accepted())
    await queue.claim(1)
    await messages.create("waits", accepted(webhookUrl="http://127.0.0.1:3/", delay=3600))
    yield store
    await invariants.check(redis, store.keys[0], LIMIT)


async def test_fsck_of_a_sound_store_has_no_findings(sound: Store) -> None:
    assert await findings(sound) == []
    check = sound.fsck(0)
    assert [one async for one in check.run(repair=False)] == []
    assert check.messages == LIMIT + 4


async def drop_record(redis: Redis, base: str) -> None:
    await redis.hdel(f"{base}payloads", "waits")


async def drop_record_in_flight(redis: Redis, base: str) -> None:
    await redis.hdel(f"{base}payloads", "flies-00")


async def drop_place(redis: Redis, base: str) -> None:
    await redis.zrem(f"{base}due", "waits")


async def drop_failed(redis: Redis, base: str) -> None:
    await redis.zrem(f"{base}failed", "bad")


async def drop_claim(redis: Redis, base: str) -> None:
    await redis.hdel(f"{base}claims", "flies-00")


async def drop_lease(redis: Redis, base: str) -> None:
    await redis.zrem(f"{base}leases", "flies-00")


async def drop_taken(redis: Redis, base: str) -> None:
    await redis.zrem(f"{base}taken", "parked", "flies-00")


async def drop_parked(redis: Redis, base: str) -> None:
    await redis.delete(f"{base}parked:127.0.0.1:2")


async def add_place(redis: Redis, base: str) -> None:
    await redis.zadd(f"{base}delivered", {"waits": LATE})


async def add_due(redis: Redis, base: str) -> None:
    await redis.zadd(f"{base}due", {"flies-00": 1})


async def add_progress(redis: Redis, base: str) -> None:
    await redis.hset(f"{base}progress", "nobody", "1 0 retry 0\n")


async def park_elsewhere(redis: Redis, base: str) -> None:
    await redis.zadd(f"{base}parked:other:1", {"waits": 1})


async def miscount(redis: Redis, base: str) -> None:
    await redis.hset(f"{base}inflight", mapping={"127.0.0.1:2": "w 7 7", "nobody:1": "w 1 1"})


@pytest.mark.parametrize(
    ("damage", "found", "repair"),
    [
        (drop_record, [("no_record", b"waits")], "dropped: there is nothing to send"),
        (drop_record_in_flight, [("no_record", b"flies-00")], "dropped: there is nothing to send"),
        (drop_place, [("no_place", b"waits")], "put back to due"),
        (drop_failed, [("no_place", b"bad")], "put back to failed"),
        (drop_claim, [("inflight", HOST), ("lease_without_claim", b"flies-00")], "put back to due"),
        (
            drop_lease,
            [("claim_without_lease", b"flies-00"), ("taken", b"flies-00")],
            "leased again; the lease is over unless its holder renews it",
        ),
        (
            drop_taken,
            [("taken", b"flies-00"), ("taken", b"parked")],
            None,
        ),
        (drop_parked, [("no_place", b"parked"), ("taken", b"parked")], "put back to due"),
        (add_place, [("one_place", b"waits")], "put back to due"),
        (
            add_due,
            [("one_place", b"flies-00")],
            "leased again; the lease is over unless its holder renews it",
        ),
        (add_progress, [("progress_alone", b"nobody")], "dropped: there is nothing to send"),
        (park_elsewhere, [("one_place", b"waits"), ("taken", b"waits")], "put back to due"),
        (
            miscount,
            [("inflight", HOST), ("inflight", b"nobody:1")],
            "counted again; messages that may be sent were unparked",
        ),
    ],
)
async def test_fsck_finds_and_repairs_a_damage(
    redis: Redis,
    sound: Store,
    damage: Damage,
    found: list[tuple[str, bytes]],
    repair: str | None,
) -> None:
    await damage(redis, sound.keys[0].base)
    first = await findings(sound)
    assert set(found) <= set(first)
    assert await findings(sound) == first  # a check without repair changes nothing
    repaired = await checked(sound, repair=True)
    assert all(one.repair for one in repaired)
    assert repair is None or repair in [one.repair for one in repaired]
    assert await findings(sound) == []


async def strand(redis: Redis, store: Store) -> None:
    """Leave one parked with nothing in flight to its destination."""
    base = store.keys[0].base
    leases: Any = await redis.zrange(f"{base}leases", 0, -1)
    for message_id in leases:
        await redis.zrem(f"{base}taken", message_id)
        await redis.hdel(f"{base}payloads", message_id)
    await redis.delete(f"{base}leases", f"{base}claims", f"{base}inflight")


async def test_fsck_finds_and_unparks_a_stranded_destination(redis: Redis, sound: Store) -> None:
    await strand(redis, sound)
    (one,) = await checked(sound, repair=True)
    assert (one.rule, one.subject) == ("stranded", HOST)
    assert await findings(sound) == []
    assert [it.id for it in (await sound.queues[0].claim(9)).messages] == ["parked"]


async def test_fsck_does_not_report_parked_messages_that_a_due_one_will_unpark(
    redis: Redis, sound: Store
) -> None:
    await strand(redis, sound)
    await sound.messages.create("next", accepted(delay=3600))
    assert await findings(sound) == []


async def test_fsck_reports_an_unknown_key_and_leaves_it(redis: Redis, sound: Store) -> None:
    name = f"{sound.keys[0].base}notes"
    await redis.set(name, "mine")
    (one,) = await checked(sound, repair=True)
    assert (one.rule, one.subject, one.repair) == ("stranger", name.encode(), None)
    assert await redis.delete(name) == 1


async def test_fsck_checks_many_messages_of_all_partitions_in_steps(
    redis: Redis, prefix: str
) -> None:
    store = Store(redis, prefix=prefix, partitions=3)
    for number in range(40 * STEP):
        await store.messages.create(f"m{number}", accepted(delay=3600))
    lost = {f"m{number}" for number in range(0, 40 * STEP, 10)}
    for keys in store.keys:
        await redis.zrem(f"{keys.base}due", *lost)
    found = await checked(store, repair=True)
    assert {one.subject.decode() for one in found} == lost
    assert await findings(store) == []
    for keys in store.keys:
        await invariants.check(redis, keys, LIMIT)


async def test_fsck_does_not_report_messages_that_move_meanwhile(live_store: Store) -> None:
    done = asyncio.Event()

    async def traffic(name: str) -> None:
        number, queue = 0, live_store.queues[0]
        while not done.is_set():
            number += 1
            await live_store.messages.create(f"{name}-{number}", accepted())
            for claimed in (await queue.claim(3)).messages:
                await queue.settle(outcome(claimed))

    moving = [asyncio.create_task(traffic(name)) for name in "abc"]
    try:
        rounds = [await findings(live_store) for _ in range(10)]
    finally:
        done.set()
        await asyncio.gather(*moving)
    assert rounds == [[]] * 10


async def test_fsck_raises_if_the_store_is_unavailable(tmp_path: Path) -> None:
    redis = connect(f"unix://{tmp_path}/nobody")
    with pytest.raises(StoreUnavailable):
        await findings(Store(redis))
    await redis.aclose()
