"""Claim withholds messages for which a process has no slot, until a process has one."""

import asyncio

from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits
from scheduler_api.store.claims import Claim, Share
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.store.conftest import Published, Replica
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.store_clock import Clock

A, B = "127.0.0.1:3001", "127.0.0.1:3002"
AGAIN = 0.25  # seconds until a process claims again what it had no slot for
NOTHING_FREE = Share(slots=8, free=1, open=[A.encode(), 3])  # a process to which A is slow
ALL_FREE = Share(slots=8, free=8)


async def create(store: Store, *names: str, to: str = A) -> None:
    asked = accepted(webhookUrl=f"http://{to}/")
    await asyncio.gather(*(store.messages.create(name, asked) for name in names))


def ids(claim: Claim) -> list[str]:
    return sorted(claimed.id for claimed in claim.messages)


async def waiting(store: Store, name: str = A) -> int:
    return (await store.destinations.get(name)).waiting


async def test_claim_gives_a_slow_destination_twice_the_free_part_of_half_of_the_slots(
    store: Store,
) -> None:
    await create(store, "a1", "a2", "a3", "a4")
    assert len(ids(await store.queues[0].claim(8, 0.0, ALL_FREE))) == 3
    assert await waiting(store) == 1


async def test_claim_gives_a_quick_destination_as_many_as_its_limit_allows(store: Store) -> None:
    await create(store, "a1", "a2", "a3", "a4")
    share = Share(slots=8, free=8, open=[A.encode(), -1])
    assert len(ids(await store.queues[0].claim(8, 0.0, share))) == CONCURRENCY


async def test_claim_finds_a_message_behind_those_of_a_slow_destination(store: Store) -> None:
    await create(store, *(f"a{number}" for number in range(300)))
    await create(store, "b", to=B)
    share = Share(slots=64, free=10, open=[A.encode(), 30])
    found = []
    claim = await store.queues[0].claim(8, 0.0, share)
    while claim.due_in == 0:  # each reads 256
        found += ids(claim)
        claim = await store.queues[0].claim(8, 0.0, share)
    assert [*found, *ids(claim)] == ["b"]
    assert await waiting(store) == 300


async def test_claim_gives_each_destination_without_an_open_request_one_slot_until_few_are_left(
    store: Store,
) -> None:
    for number in range(8):
        await create(store, f"{number}-1", f"{number}-2", to=f"127.0.0.1:{4000 + number}")
    share = Share(slots=64, free=6)
    assert len(ids(await store.queues[0].claim(6, 0.0, share))) == 4


async def test_claim_of_a_process_with_one_slot_returns_one_message_of_a_slow_destination(
    store: Store,
) -> None:
    await create(store, "a1", "a2")
    share = Share(slots=1, free=1, open=[A.encode(), 1])
    assert len(ids(await store.queues[0].claim(1, 0.0, share))) == 1


async def test_claim_that_withholds_all_messages_is_repeated_after_a_pause(
    store: Store, clock: Clock
) -> None:
    await create(store, "a1", "a2")
    for _ in range(3):
        claim = await store.queues[0].claim(1, 0.0, NOTHING_FREE)
        assert (ids(claim), claim.due_in) == ([], AGAIN)
        await clock.advance(250)


async def test_claim_that_withholds_messages_notifies_another_process_which_claims_them(
    store: Store, replica: Replica, published: Published
) -> None:
    await create(store, "a1", "a2")
    await published()
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    assert len(await published()) == 1
    other = replica()
    assert ids(await other.queues[0].claim(8, 0.0, ALL_FREE)) == ["a1", "a2"]
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    assert await published() == []


async def test_claim_returns_withheld_messages_once_slots_are_free(
    store: Store, redis: Redis
) -> None:
    await create(store, "a1", "a2", "a3", "a4")
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    claim = await store.queues[0].claim(8, 0.0, ALL_FREE)
    assert len(ids(claim)) == 3
    assert claim.due_in == AGAIN
    for message in claim.messages:
        await store.queues[0].settle(outcome(message))
    claim = await store.queues[0].claim(8, 0.0, ALL_FREE)
    assert len(ids(claim)) == 1
    claim = await store.queues[0].claim(8, 0.0, ALL_FREE)
    assert claim.due_in is None
    assert not await redis.exists(f"{store.keys[0].base}withheld")


async def test_claim_unparks_all_withheld_destinations_in_turn(
    store: Store,
) -> None:
    hosts = [f"127.0.0.1:{4000 + number}" for number in range(40)]
    for host in hosts:
        await create(store, host.partition(":")[2], to=host)
    full = Share(slots=64, free=1, open=[part for host in hosts for part in (host.encode(), 30)])
    await store.queues[0].claim(1, 0.0, full)
    free = Share(slots=64, free=64)
    claims = [await store.queues[0].claim(64, 0.0, free) for _ in range(3)]
    found = [name for claim in claims for name in ids(claim)]
    assert sorted(found) == [str(4000 + number) for number in range(40)]


async def test_claim_checks_a_paused_withheld_destination_only_once(
    store: Store,
) -> None:
    await create(store, "a1", "a2")
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    await store.destinations.set_limit(A, Limits(paused=True))
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    claim = await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    assert claim.due_in is None
    await store.destinations.set_limit(A, Limits())
    assert ids(await store.queues[0].claim(8, 0.0, ALL_FREE)) == ["a1", "a2"]


async def test_cancel_of_a_withheld_message_strands_no_other(store: Store, clock: Clock) -> None:
    await create(store, "a1")
    await clock.advance(1)
    await create(store, "a2")
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    await store.messages.cancel("a1")
    assert ids(await store.queues[0].claim(8, 0.0, ALL_FREE)) == ["a2"]


async def test_cancel_of_the_last_withheld_message_removes_its_destination_from_withheld(
    store: Store, redis: Redis
) -> None:
    await create(store, "a1")
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    await store.messages.cancel("a1")
    claim = await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    assert claim.due_in is None
    assert not await redis.exists(f"{store.keys[0].base}withheld")


async def due(redis: Redis, store: Store) -> int:
    return int(await redis.zcard(f"{store.keys[0].base}due"))


async def test_settle_release_and_cancel_unpark_one_of_many_withheld_messages_each(
    store: Store, redis: Redis
) -> None:
    await store.destinations.set_limit(A, Limits(concurrency=64))
    await create(store, *(f"a{number}" for number in range(100)))
    queue = store.queues[0]
    (first,) = (await queue.claim(1, 0.0, Share(slots=64, free=8))).messages
    await queue.claim(1, 0.0, Share(slots=64, free=7, open=[A.encode(), 1]))
    assert (await due(redis, store), await waiting(store)) == (0, 99)
    await queue.settle(outcome(first))
    assert (await due(redis, store), await waiting(store)) == (1, 98)
    (second,) = (await queue.claim(1, 0.0, Share(slots=64, free=8))).messages
    left = await waiting(store)
    await queue.release([second])
    assert await waiting(store) == left - 1
    await store.messages.cancel(second.id)
    assert await waiting(store) == left - 2


async def test_settle_unparks_a_message_for_each_free_slot_if_none_is_withheld(
    store: Store, redis: Redis
) -> None:
    await create(store, *(f"a{number}" for number in range(CONCURRENCY + 9)))
    claim = await store.queues[0].claim(8)
    await store.destinations.set_limit(A, Limits(concurrency=CONCURRENCY + 3))
    await store.queues[0].settle(outcome(claim.messages[0]))
    assert (await due(redis, store), await waiting(store)) == (4, 5)


async def test_claim_returns_withheld_messages_although_meta_lost_the_field_withheld(
    store: Store, redis: Redis
) -> None:
    await create(store, "a1", "a2")
    await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    await redis.hdel(store.keys[0].meta, "withheld")
    await create(store, "a3")
    claim = await store.queues[0].claim(1, 0.0, NOTHING_FREE)
    assert claim.due_in == AGAIN
    assert ids(await store.queues[0].claim(8, 0.0, ALL_FREE)) == ["a1", "a2", "a3"]
