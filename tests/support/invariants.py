"""Checks the invariants over the data that a test has left in the store."""

from typing import Any

from redis.asyncio import Redis

from scheduler_api.store.audit.invariants import Snapshot, findings
from scheduler_api.store.keys import FINISHED, Keys

OWNED = {  # all keys but parked:*; the clock belongs to the tests
    *("due", "taken", "leases", "claims", "inflight", "payloads", "progress"),
    *(*FINISHED, "workers", "meta", "clock"),
    *("parking", "limits", "rate", "unreachable", "opens", "withheld", "even", "odd"),
}


async def check(redis: Redis, keys: Keys, concurrency: int) -> None:
    """Fail if an invariant does not hold in this partition."""
    assert [str(it) for it in findings(await snapshot(redis, keys), concurrency)] == []


async def snapshot(redis: Redis, keys: Keys) -> Snapshot:
    """The content of all keys of a partition; nothing may write meanwhile."""
    base = keys.base

    async def ids(name: str) -> set[bytes]:
        return await _members(redis, f"{base}{name}")

    async def fields(name: str) -> dict[bytes, bytes]:
        found: Any = await redis.hgetall(f"{base}{name}")
        return dict(found)

    names = {key async for key in redis.scan_iter(f"{base}*", count=1000)}
    parked = {key for key in names if key.startswith(f"{base}parked:".encode())}
    owned = {f"{base}{name}".encode() for name in OWNED}
    return Snapshot(
        due=await ids("due"),
        taken=await ids("taken"),
        leases=await ids("leases"),
        finished={state: await ids(state) for state in FINISHED},
        parked={
            key.removeprefix(f"{base}parked:".encode()): await _members(redis, key)
            for key in parked
        },
        claims=await fields("claims"),
        inflight=await fields("inflight"),
        payloads=await fields("payloads"),
        progress=set(await fields("progress")),
        parking=await _set_members(redis, f"{base}parking"),
        limits=await fields("limits"),
        unreachable=await fields("unreachable"),
        opens=await ids("opens"),
        withheld=await ids("withheld") if b"withheld" in await fields("meta") else frozenset(),
        strangers=names - parked - owned,
    )


async def _members(redis: Redis, key: bytes | str) -> set[bytes]:
    found: Any = await redis.zrange(key, 0, -1)
    return set(found)


async def _set_members(redis: Redis, key: str) -> set[bytes]:
    found: Any = await redis.smembers(key)
    return set(found)
