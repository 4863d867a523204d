"""Damaged data: no script raises, as it would raise in each call and stop its partition."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.store.audit.invariants import Finding
from scheduler_api.store.connection.script_text import NAMES
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.store.audit.test_fsck import checked
from tests.store.connection.test_scripts import CALLS, CHANGE_NOTHING, DAY, busy
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.store_clock import Clock

__all__ = ["busy"]  # the fixture: four in flight, leases over; two parked; one waits; one is done

HOST = "127.0.0.1:2"
HOUR = 3_600_000  # ms
Damage = tuple[str | bytes | int, ...]  # a command; its key without what all keys begin with

DAMAGES: dict[str, tuple[Damage, ...]] = {
    "leases without claims": (("HDEL", "claims", "taken-0", "taken-3"),),
    "a lease without a message": (("ZADD", "leases", 1, "nobody"),),
    "a lease of what waits": (("ZADD", "leases", 1, "waits"),),
    "a lease of what is done": (("ZADD", "leases", 1, "done"),),
    "claims without leases": (("ZREM", "leases", "taken-0", "taken-3"),),
    "a claim without a message": (("HSET", "claims", "nobody", f"2 worker_id before {HOST}"),),
    "a claim that cannot be read": (("HSET", "claims", "taken-0", "x"),),
    "a claim without a destination": (("HSET", "claims", "taken-0", "2 worker_id before"),),
    "claims that `taken` has lost": (("ZREM", "taken", "taken-0", "taken-1", "taken-2"),),
    "`taken` has lost all": (("DEL", "taken"),),
    "taken without a record": (("HDEL", "payloads", "taken-0", "parked-1", "waits", "done"),),
    "no records at all": (("DEL", "payloads"),),
    "records that are cut": (
        *(("HSET", "payloads", "taken-0", b"\1"), ("HSET", "payloads", "waits", "")),
        *(("HSET", "payloads", "done", bytes(22)), ("HSET", "payloads", "parked-1", bytes(23))),
        ("HSET", "payloads", "new", b"\1"),
    ),
    "a record whose destination is nowhere": (
        ("HSET", "payloads", "waits", bytes(21) + b"\xff\xffh/\n"),
    ),
    "a record whose destination is two words": (
        ("HSET", "payloads", "waits", bytes(21) + b"\7\3h x/\n"),
    ),
    "too few permits": (("HSET", "inflight", HOST, "worker_id 0 4"),),
    "too many permits": (("HSET", "inflight", HOST, "worker_id 99 4"),),
    "too few claims": (("HSET", "inflight", HOST, "worker_id 4 1"),),
    "too many claims": (("HSET", "inflight", HOST, "worker_id 4 99"),),
    "permits of a process without claims": (("HSET", "inflight", HOST, "worker_id 4 4 other 9 9"),),
    "permits of another process": (("HSET", "inflight", HOST, "other 4 4"),),
    "permits counted twice": (("HSET", "inflight", HOST, "worker_id 4 4 worker_id 4 4"),),
    "permits for a destination without messages": (("HSET", "inflight", "nobody:1", "other 4 4"),),
    "counts that are one number": (("HSET", "inflight", HOST, 4),),
    "counts that are no numbers": (("HSET", "inflight", HOST, "worker_id x y"),),
    "counts that are negative": (("HSET", "inflight", HOST, "worker_id -4 -4"),),
    "counts that are fractions": (("HSET", "inflight", HOST, "worker_id 1.5 4.5"),),
    "counts that are huge": (("HSET", "inflight", HOST, f"worker_id {'9' * 400} {'9' * 400}"),),
    "counts with other text": (("HSET", "inflight", HOST, b"\xff \0 worker_id 4 4 \n 1"),),
    "no counts": (("HSET", "inflight", HOST, ""),),
    "nothing is in flight": (("DEL", "inflight"),),
    "settings that cannot be read": (("HSET", "limits", HOST, "x"),),
    "settings whose interval is no number": (("HSET", "limits", HOST, "0 - 0 [null,null,false]"),),
    "failures to connect that cannot be read": (("HSET", "unreachable", HOST, "x"),),
    "an instant of a rate that is no number": (
        ("HSET", "limits", HOST, '0 1000 0 [null,"1/s",false]'),
        ("HSET", "rate", HOST, "x"),
    ),
    "a progress that cannot be read": (("HSET", "progress", "taken-0", "x"),),
    "a process that cannot be read": (("HSET", "workers", "worker_id", "x", "other", ""),),
    "results that cannot be read": (
        ("HSET", "even", "", "x", HOST, "x d:x :"),
        ("HSET", "odd", "", (NOW + 2 * DAY) // HOUR, HOST, "x d:x :"),
    ),
    "parking of a destination without messages": (
        ("SADD", "parking", "nobody:1"),
        ("ZADD", "opens", 1, "nobody:1"),
    ),
    "withheld destination without messages": (
        ("ZADD", "withheld", 1, "nobody:1"),
        ("HSET", "meta", "withheld", 1),
    ),
    "parked, and not in `parking`": (("DEL", "parking"),),
    "parked for another": (
        ("ZADD", "parked:nobody:1", 1, "waits"),
        ("SADD", "parking", "nobody:1"),
    ),
    "due and leased": (("ZADD", "due", 1, "taken-0"),),
    "due without a record": (("ZADD", "due", 1, "nobody"),),
    "done without a record": (("ZADD", "delivered", 1, "nobody"), ("ZADD", "failed", 1, "nobody")),
    "until when nobody reaps is no number": (("HSET", "meta", "outage_until", "x"),),
}


class Image:
    """All keys of a store, to be put back."""

    def __init__(self, redis: Redis, base: str) -> None:
        self._redis = redis
        self._base = base
        self._kept: dict[bytes, Any] = {}

    async def take(self) -> None:
        """As they are now."""
        names = await self._names()
        kept = await asyncio.gather(*(self._redis.dump(name) for name in names))
        self._kept = dict(zip(names, kept, strict=True))

    async def put_back(self) -> None:
        """As they were."""
        more = set(await self._names()) - self._kept.keys()
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name in more:
                pipeline.delete(name)
            for name, kept in self._kept.items():
                pipeline.restore(name, 0, kept, replace=True)
            await pipeline.execute()

    async def _names(self) -> list[bytes]:
        return [name async for name in self._redis.scan_iter(f"{self._base}*", count=1000)]


async def damage(redis: Redis, base: str, damages: tuple[Damage, ...]) -> None:
    """Done to the keys by hand."""
    for command, key, *rest in damages:
        await redis.execute_command(command, f"{base}{key!s}", *rest)  # type: ignore[no-untyped-call]


def wrong(finding: Finding) -> bool:
    """Whether it is a finding about the data; the tests' clock is not a key of this service."""
    return finding.rule != "stranger"


async def findings(store: Store) -> list[Finding]:
    """What is wrong."""
    return [one for one in await checked(store) if wrong(one)]


@pytest.fixture
async def image(redis: Redis, store: Store, busy: None) -> AsyncIterator[Image]:
    """What `busy` leaves; put back in the end."""
    del busy
    one = Image(redis, store.keys[0].base)
    await one.take()
    yield one
    await one.put_back()


@pytest.mark.parametrize("name", DAMAGES)
async def test_scripts_do_not_raise_on_damaged_data_and_fsck_repairs_it(
    store: Store, redis: Redis, scripts: Scripts, image: Image, name: str
) -> None:
    for script in sorted(NAMES, key=CHANGE_NOTHING.__contains__):
        await damage(redis, store.keys[0].base, DAMAGES[name])
        await scripts.run(script, *CALLS[script])
        if script not in CHANGE_NOTHING:
            await image.put_back()
    await store.messages.create("sound", accepted(webhookUrl="http://other.example/"))
    page = await store.messages.list(100, None)
    assert "sound" in [row.id for row in page.rows]
    await store.destinations.list(100)
    await store.destinations.get(HOST)
    for _ in range(2):  # what the first unparks may be damaged too
        assert all(one.repair for one in await checked(store, repair=True) if wrong(one))
    assert await findings(store) == []


async def test_reap_takes_back_leases_without_a_claim(
    store: Store, redis: Redis, clock: Clock
) -> None:
    for number in range(3):
        await store.messages.create(f"m{number}", accepted())
    await store.queues[0].claim(100)
    await redis.hdel(f"{store.keys[0].base}claims", "m1")
    await clock.advance(15_000)
    assert await store.queues[0].reap() == (3, [])
    assert (await store.destinations.list(100)).rows == []
    assert len((await store.queues[0].claim(100)).messages) == 3


async def test_reap_of_a_delivered_message_sends_it_again_and_keeps_its_record(
    store: Store, redis: Redis
) -> None:
    await store.messages.create("a", accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    await store.queues[0].settle(outcome(claimed))
    await redis.zadd(f"{store.keys[0].base}leases", {"a": 1})
    assert await store.queues[0].reap() == (1, [])
    assert await findings(store) == []
    assert (await store.messages.get("a")).state == "retrying"


@pytest.mark.parametrize("end", ["reap", "recover", "release"])
async def test_reap_of_a_claim_missing_in_taken_is_due_again_and_not_early(
    store: Store, redis: Redis, clock: Clock, end: str
) -> None:
    await store.messages.create("a", accepted(delay=1))
    claim = await store.queues[0].claim(1, ahead=2)
    await redis.zrem(f"{store.keys[0].base}taken", "a")
    if end == "release":
        await store.queues[0].release(claim.messages)
    elif end == "recover":
        await store.queues[0].recover(store.worker_id)
    else:
        await clock.advance(15_000)
        await store.queues[0].reap()
    (row,) = (await store.messages.list(1, None)).rows
    at = NOW + 15_000 if end == "reap" else NOW + 1_000
    assert row.due_at.timestamp() * 1000 == at
    assert await findings(store) == []
