"""Permits: which claims get one, which wait for one, and how the store counts them."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits, Rate
from scheduler_api.domain.retry import Retry
from scheduler_api.store.claims import Claim, Claimed, Outcome, Share
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.store.conftest import Replica
from tests.support.factories import accepted
from tests.support.message_states import RETRY_AFTER, attempt, outcome
from tests.support.store_clock import Clock

A, B = b"127.0.0.1:3001", b"127.0.0.1:3002"
LEASE = 15_000  # ms, of `store`
QUEUED_PER_PERMIT = 3  # as in lib/queueing.lua
MIB = 1024 * 1024


def quick(waiting: int = 0, **fields: Any) -> Share:
    """The slots of a process that has requests to A, and to which A answers quickly."""
    return Share(**{"slots": 64, "free": 64, "open": [A, -2], "lines": [A, waiting], **fields})


async def create(store: Store, *names: str, to: bytes = A, **fields: Any) -> None:
    asked = accepted(webhookUrl=f"http://{to.decode()}/", **fields)
    await asyncio.gather(*(store.messages.create(name, asked) for name in names))


async def fill(store: Store, more: int = 20) -> list[Claimed]:
    """Claim as many messages for A as it may have open, and create `more`."""
    await create(store, *(f"open-{number}" for number in range(CONCURRENCY)))
    claim = await store.queues[0].claim(CONCURRENCY)
    await create(store, *(f"m{number:02}" for number in range(more)))
    return claim.messages


def permits(claim: Claim) -> list[bool]:
    return [claimed.permit for claimed in claim.messages]


async def counted(redis: Redis, store: Store, dest: bytes = A) -> str | None:
    """The field of `inflight`, with the worker id of this store as `w`."""
    field: Any = await redis.hget(f"{store.keys[0].base}inflight", dest.decode())
    return None if field is None else str(field.decode()).replace(store.worker_id, "w")


async def load(store: Store) -> tuple[int, int]:
    """Open requests to A, and the messages that wait for it."""
    found = await store.destinations.get(A.decode())
    return found.in_flight, found.waiting


# --- Which claims get a permit ---


async def test_claim_leases_three_more_messages_for_each_permit_of_a_quick_destination(
    store: Store, redis: Redis
) -> None:
    await create(store, *(f"m{number:02}" for number in range(20)))
    claim = await store.queues[0].claim(100, 0.0, quick())
    queued = QUEUED_PER_PERMIT * CONCURRENCY
    assert permits(claim) == CONCURRENCY * [True] + queued * [False]
    assert await counted(redis, store) == f"w {CONCURRENCY} {CONCURRENCY + queued}"
    assert await load(store) == (CONCURRENCY, 20 - CONCURRENCY)


@pytest.mark.parametrize(
    ("share", "queued"),
    [
        (quick(), 12),
        (quick(open=[A, -2]), 12),  # requests, and none has waited for them yet
        (quick(open=[A, -1]), 0),  # no request, whose end would let them start
        (quick(open=[A, CONCURRENCY]), 0),  # slow
        (quick(open=[]), 0),  # not known to be quick
        (Share(), 0),  # a process that does not divide its slots
        (quick(waiting=12), 0),
        (quick(waiting=10), 2),
        (quick(free=5), 5),
        (quick(free=5, queued=3), 2),
        (quick(free=5, queued=5), 0),
        (quick(free=5, queued=9), 0),
    ],
)
async def test_claim_leases_messages_for_a_full_destination_only_if_they_soon_get_a_permit(
    store: Store, share: Share, queued: int
) -> None:
    await fill(store)
    claim = await store.queues[0].claim(100, 0.0, share)
    assert permits(claim) == queued * [False]
    assert await load(store) == (CONCURRENCY, 20)


@pytest.mark.parametrize(
    ("limits", "queued"),
    [
        (Limits(concurrency=CONCURRENCY), 12),
        (Limits(concurrency=CONCURRENCY - 1), 0),  # more are open than its new limit allows
        (Limits(rate=Rate(1, "s")), 0),
        (Limits(paused=True), 0),
    ],
)
async def test_claim_leases_no_message_without_a_permit_under_other_limits(
    store: Store, limits: Limits, queued: int
) -> None:
    await fill(store)
    await store.destinations.set_limit(A.decode(), limits)
    claim = await store.queues[0].claim(100, 0.0, quick())
    assert permits(claim) == queued * [False]


async def test_claim_leases_no_message_without_a_permit_for_an_unreachable_destination(
    store: Store, clock: Clock
) -> None:
    await create(store, *(f"down-{number}" for number in range(5)))
    await store.destinations.set_limit(A.decode(), Limits(concurrency=5))
    for claimed in (await store.queues[0].claim(100)).messages:
        made = attempt(status=None, error="connect_error")
        await store.queues[0].settle(Outcome(claimed, made, Retry(RETRY_AFTER)))
    await create(store, "m1", "m2")
    assert permits(await store.queues[0].claim(100, 0.0, quick())) == []
    await clock.advance(1_000)
    assert permits(await store.queues[0].claim(100, 0.0, quick())) == [True]  # the probe
    assert permits(await store.queues[0].claim(100, 0.0, quick())) == []


async def test_claim_leases_messages_without_a_permit_beside_those_that_take_a_slot(
    store: Store,
) -> None:
    await fill(store)
    await create(store, "z", to=B)
    claim = await store.queues[0].claim(100, 0.0, quick(slots=8, free=8))
    assert permits(claim) == 8 * [False] + [True]


async def test_claim_leases_no_message_without_a_permit_for_a_process_that_has_none(
    store: Store, replica: Replica, redis: Redis
) -> None:
    await fill(store)
    other = replica()
    assert permits(await other.queues[0].claim(100, 0.0, quick())) == []
    assert await counted(redis, store) == f"w {CONCURRENCY} {CONCURRENCY}"


async def test_claim_for_two_processes_keeps_to_the_limit_of_both_together(
    store: Store, replica: Replica, redis: Redis
) -> None:
    other = replica()
    await create(store, "a1", "a2", "a3")
    await store.queues[0].claim(100)
    await create(store, *(f"m{number}" for number in range(9)))
    claim = await other.queues[0].claim(100, 0.0, quick())
    assert permits(claim) == [True, False, False, False]
    assert await counted(redis, store) == f"w 3 3 {other.worker_id} 1 4"
    assert await load(store) == (CONCURRENCY, 3 + 5)
    await other.queues[0].settle(outcome(claim.messages[0]))
    assert await counted(redis, store) == f"w 3 3 {other.worker_id} 0 3"


async def test_claim_with_a_repeated_nonce_returns_the_same_permits(
    store: Store, scripts: Scripts
) -> None:
    await create(store, *(f"m{number:02}" for number in range(20)))
    call = (100, LEASE, store.worker_id, "nonce", CONCURRENCY, 0, 64, 64, 0, 1, A, 0, A, -2)
    first, again = [(await scripts.run("claim", *call))[7:] for _ in range(2)]
    rows = {first[i]: first[i + 4] for i in range(0, len(first), 5)}
    assert sorted(rows.values()) == 12 * [0] + 4 * [1]
    assert {again[i]: again[i + 4] for i in range(0, len(again), 5)} == rows


# --- Parked messages that wait in the process ---


async def test_claim_brings_parked_messages_to_the_place_of_those_that_were_sent(
    store: Store, redis: Redis
) -> None:
    await fill(store)
    first = await store.queues[0].claim(100, 0.0, quick())
    assert await store.queues[0].claim(100, 0.0, quick(waiting=12)) is not None
    claim = await store.queues[0].claim(100, 0.0, quick(waiting=9))
    assert [claimed.id for claimed in claim.messages] == ["m12", "m13", "m14"]
    assert permits(claim) == [False, False, False]
    assert len(first.messages) == 12
    assert await redis.zcard(f"{store.keys[0].base}parked:{A.decode()}") == 20 - 15


async def test_claim_brings_no_parked_message_if_enough_others_are_due(store: Store) -> None:
    await fill(store)
    await store.queues[0].claim(100)
    await create(store, *(f"b{number}" for number in range(5)), to=B)
    share = quick(free=6, open=[A, -2, B, -1])
    claim = await store.queues[0].claim(6, 0.0, share)
    assert sorted(claimed.id for claimed in claim.messages) == ["b0", "b1", "b2", "b3", "b4", "m00"]


async def test_claim_puts_parked_messages_that_are_too_large_for_it_back_into_due(
    store: Store, redis: Redis
) -> None:
    await fill(store, more=0)
    await create(store, *"abcdefg", payload=MIB * "x")
    await store.queues[0].claim(100)
    claim = await store.queues[0].claim(100, 0.0, quick())
    assert len(claim.messages) == 4
    assert claim.due_in == 0
    assert await redis.zcard(f"{store.keys[0].base}due") == 3
    assert len((await store.queues[0].claim(100, 0.0, quick(waiting=4))).messages) == 3


async def test_claim_drops_a_parked_message_without_a_record(store: Store, redis: Redis) -> None:
    await fill(store, more=2)
    await store.queues[0].claim(100)
    await redis.hdel(f"{store.keys[0].base}payloads", "m00")
    claim = await store.queues[0].claim(100, 0.0, quick())
    assert ([it.id for it in claim.messages], claim.dropped) == (["m01"], 1)


# --- How claims end ---


async def test_settle_gives_a_permit_back_only_if_the_process_has_not_passed_it_on(
    store: Store, redis: Redis
) -> None:
    first, second, *_ = await fill(store)
    await store.queues[0].claim(100, 0.0, quick())
    first.permit = False
    assert await store.queues[0].settle(outcome(first))
    assert await counted(redis, store) == "w 4 15"
    assert await store.queues[0].settle(outcome(second))
    assert await counted(redis, store) == "w 3 14"


async def test_settle_of_a_claim_that_is_not_held_gives_no_permit_back(
    store: Store, redis: Redis, replica: Replica
) -> None:
    first, second, *_ = await fill(store)
    other = replica()
    assert not await other.queues[0].settle(outcome(first))
    assert await counted(redis, store) == "w 4 4"
    assert await store.queues[0].settle(outcome(second))
    assert not await store.queues[0].settle(outcome(second))
    assert await counted(redis, store) == "w 3 3"


async def test_settle_leaves_a_process_no_more_permits_than_claims(
    store: Store, redis: Redis
) -> None:
    for claimed in await fill(store, more=0):
        claimed.permit = False
        await store.queues[0].settle(outcome(claimed))
        left = int(claimed.id.removeprefix("open-"))
        assert await counted(redis, store) == (f"w {3 - left} {3 - left}" if left < 3 else None)


async def test_settle_unparks_a_message_for_a_permit_that_is_given_back(
    store: Store, redis: Redis
) -> None:
    first, second, *_ = await fill(store)
    await store.queues[0].claim(100, 0.0, quick())
    first.permit = False
    await store.queues[0].settle(outcome(first))
    assert await redis.zcard(f"{store.keys[0].base}due") == 0
    await store.queues[0].settle(outcome(second))
    assert await redis.zcard(f"{store.keys[0].base}due") == 1


async def test_settle_wakes_a_process_that_passed_a_permit_on_if_messages_are_parked(
    store: Store, scripts: Scripts
) -> None:
    opened = await fill(store)
    await store.queues[0].claim(100, 0.0, quick())

    async def settle(claimed: Claimed, permit: int) -> Any:
        end = (claimed.id, claimed.fence, "delivered", 9, "1 0", "", "yes", 7, permit)
        return await scripts.run("settle", store.worker_id, CONCURRENCY, 10, *end)

    assert await settle(opened[0], 0) == [1, b"parked"]
    await store.destinations.set_limit(A.decode(), Limits(paused=True))
    await store.queues[0].claim(100)
    assert await settle(opened[1], 1) == [0, b"ok"]
    for number in range(12, 20):
        await store.messages.cancel(f"m{number}")
    assert await settle(opened[2], 0) == [0, b"ok"]


async def test_release_gives_permits_back_only_with_messages_that_have_one(
    store: Store, redis: Redis
) -> None:
    opened = await fill(store, more=8)
    queued = (await store.queues[0].claim(100, 0.0, quick())).messages
    assert await counted(redis, store) == "w 4 12"
    await store.queues[0].release(queued)
    assert await counted(redis, store) == "w 4 4"
    await store.queues[0].release([*opened[:2], *opened[:1]])
    assert await counted(redis, store) == "w 2 2"
    await store.queues[0].release(opened)
    assert await counted(redis, store) is None
    claim = await store.queues[0].claim(100)
    assert permits(claim) == CONCURRENCY * [True]


@pytest.mark.parametrize("end", ["reap", "recover"])
async def test_reap_and_recover_end_the_permits_of_a_process_and_not_those_of_others(
    store: Store, redis: Redis, replica: Replica, clock: Clock, end: str
) -> None:
    other = replica()
    await create(store, "a1", "a2")
    await store.queues[0].claim(100)
    await clock.advance(LEASE // 2)
    await create(store, *(f"m{number}" for number in range(9)))
    assert len((await other.queues[0].claim(100, 0.0, quick())).messages) == 8
    if end == "recover":
        assert await store.queues[0].recover(other.worker_id) == (8, [])
        assert await counted(redis, store) == "w 2 2"
    else:
        await clock.advance(LEASE // 2)
        assert await store.queues[0].reap() == (2, [])
        assert await counted(redis, other) == "w 2 8"
    claim = await store.queues[0].claim(100, 0.0, quick())
    assert permits(claim).count(True) == 2


async def test_reap_of_some_leases_leaves_the_permits_of_the_others(
    store: Store, redis: Redis, clock: Clock
) -> None:
    opened = await fill(store)
    await clock.advance(LEASE // 2)
    await store.queues[0].claim(100, 0.0, quick())
    await store.queues[0].renew(opened[:1])
    await clock.advance(LEASE // 2)
    assert await store.queues[0].reap() == (3, [])
    assert await counted(redis, store) == "w 4 13"


# --- Damaged counts ---


@pytest.mark.parametrize(
    ("text", "in_flight"),
    [
        ("w 3 9 v 1 1", 4),
        ("w 3 9 and 2 words v 1 1", 4),
        ("w -3 9", 0),
        ("w 1.5 9", 0),
        ("", 0),
        ("4", 0),
        (f"w {'9' * 400} {'9' * 400}", 2**31),
    ],
)
async def test_destinations_get_counts_the_permits_of_all_processes_and_ignores_other_text(
    store: Store, redis: Redis, text: str, in_flight: int
) -> None:
    await create(store, "a", delay=60)
    await store.destinations.set_limit(A.decode(), Limits())
    await redis.hset(f"{store.keys[0].base}inflight", A.decode(), text)
    found = await store.destinations.get(A.decode())
    await redis.hdel(f"{store.keys[0].base}inflight", A.decode())
    assert found.in_flight == in_flight


@pytest.mark.parametrize(
    ("text", "mended"),
    [
        ("{w} 2 9", "w 2 7"),
        ("{w} 9 9", "w 7 7"),
        ("{w} 4 7 nobody 1 1", "w 4 7"),
        ("{w} 2 6 {w} 1 1", "w 3 7"),
        ("x {w} 4 7", "w 4 7"),
        ("{w} -4 7", "w 7 7"),
        (None, "w 7 7"),
    ],
)
async def test_fsck_keeps_known_permits_and_gives_each_uncounted_claim_one(
    store: Store, redis: Redis, text: str | None, mended: str
) -> None:
    await fill(store, more=3)
    await store.queues[0].claim(100, 0.0, quick())
    key = f"{store.keys[0].base}inflight"
    await redis.delete(key)
    if text is not None:
        await redis.hset(key, A.decode(), text.format(w=store.worker_id))
    found = [it async for it in store.fsck(0).run(repair=True) if it.rule != "stranger"]
    assert [(it.rule, it.subject) for it in found] == [("inflight", A)]
    assert await counted(redis, store) == mended
