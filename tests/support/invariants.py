"""What must hold between any two scripts; asserted after every test of the store."""

from collections import Counter
from typing import Any

from redis.asyncio import Redis

from scheduler_api.store.keys import Keys


async def check(redis: Redis, keys: Keys, concurrency: int) -> None:
    """The invariants of the design that one look at the keys can tell."""
    base = keys.base

    async def ids(name: str) -> set[bytes]:
        return await _members(redis, f"{base}{name}")

    async def fields(name: str) -> dict[bytes, bytes]:
        found: Any = await redis.hgetall(f"{base}{name}")
        return dict(found)

    due, taken, leases = await ids("due"), await ids("taken"), await ids("leases")
    done = [await ids("delivered"), await ids("failed")]
    claims, payloads = await fields("claims"), await fields("payloads")
    progress = await fields("progress")
    inflight = {dest: int(count) for dest, count in (await fields("inflight")).items()}
    parked = {
        key.removeprefix(f"{base}parked:".encode()): await _members(redis, key)
        async for key in redis.scan_iter(f"{base}parked:*", count=1000)
    }

    places = [due, leases, *parked.values(), *done]
    everywhere = [message_id for place in places for message_id in place]
    assert len(everywhere) == len(set(everywhere)), "1: a message is in one place"
    assert set(everywhere) == set(payloads), "2: each has a record, and each record a place"
    assert set(progress) <= set(payloads), "18: no progress without a message"
    assert leases == set(claims), "3: leases ⇔ claims"
    assert taken == leases.union(*parked.values()), "taken = leased or parked"
    counted = Counter(claim.split(b" ")[3] for claim in claims.values())
    assert inflight == dict(counted), "4: in flight = number of claims, no zero fields"
    waiting = {_destination(payloads[message_id]) for message_id in due}
    for dest, parked_ids in parked.items():
        assert parked_ids, "7: no empty set"
        full = inflight.get(dest, 0) >= concurrency
        assert full or dest in waiting, f"6: {dest!r} is stranded"
    known = {"due", "taken", "leases", "claims", "inflight", "payloads", "progress"}
    known |= {"delivered", "failed", "workers", "meta", "clock"}
    async for key in redis.scan_iter(f"{base}*", count=1000):
        name = key.decode().removeprefix(base)
        assert name in known or name.startswith("parked:"), f"18: nobody owns {name}"


async def _members(redis: Redis, key: bytes | str) -> set[bytes]:
    found: Any = await redis.zrange(key, 0, -1)
    return set(found)


def _destination(record: bytes) -> bytes:
    start, size = record[13], record[14]
    return record[15 + start : 15 + start + size]
