"""Release makes claimed messages due again without an attempt."""

import msgspec
import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.store.conftest import Published, Replica
from tests.support.factories import accepted
from tests.support.lost_replies import lose_next_reply
from tests.support.message_states import bring, everything, fill, outcome
from tests.support.store_clock import Clock


async def test_release_keeps_the_due_instant_and_the_attempts(store: Store, clock: Clock) -> None:
    await bring(store, "retrying")
    await clock.advance(61_000)
    claim = await store.queues[0].claim(1)
    await store.queues[0].release(claim.messages)
    found = await store.messages.get("a")
    assert (found.state, found.attempts_made, found.crashes) == ("retrying", 1, 0)
    assert found.next_attempt_at == from_ms(NOW + 60_000)


async def test_release_makes_a_message_claimable_at_once(store: Store) -> None:
    await bring(store, "scheduled")
    first = (await store.queues[0].claim(1)).messages
    await store.queues[0].release(first)
    second = (await store.queues[0].claim(1)).messages
    assert second == [msgspec.structs.replace(first[0], fence=first[0].fence + 1)]


async def test_release_ignores_a_settled_claim(store: Store) -> None:
    await bring(store, "scheduled")
    claim = await store.queues[0].claim(1)
    await store.queues[0].settle(outcome(claim.messages[0]))
    await store.queues[0].release(claim.messages)
    assert (await store.messages.get("a")).state == "delivered"


async def test_release_ignores_a_claim_of_another_process(
    store: Store, redis: Redis, replica: Replica
) -> None:
    other = replica()
    await bring(store, "scheduled")
    claim = await store.queues[0].claim(1)
    before = await everything(redis, store.keys[0])
    await other.queues[0].release(claim.messages)
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.parametrize("given_back", [1, CONCURRENCY])
async def test_release_unparks_a_message_for_each_freed_slot(store: Store, given_back: int) -> None:
    claims = await fill(store)
    for number in range(3):
        await store.messages.create(f"parked-{number}", accepted())
    await store.queues[0].claim(10)
    await store.queues[0].release(claims[:given_back])
    # The ones given back are due again, and so is a parked one for each open slot.
    claimed = {one.id for one in (await store.queues[0].claim(100)).messages}
    assert len(claimed) == given_back


async def test_release_notifies_other_processes(store: Store, published: Published) -> None:
    await bring(store, "scheduled")
    claim = await store.queues[0].claim(1)
    await published()
    await store.queues[0].release(claim.messages)
    assert await published() == [NOW]


async def test_release_without_claims_forgets_the_process(store: Store, redis: Redis) -> None:
    await bring(store, "delivered")
    workers = f"{store.keys[0].base}workers"
    assert await redis.hkeys(workers) == [store.queues[0].worker_id.encode()]
    await store.queues[0].release([])
    assert await redis.hkeys(workers) == []


async def test_release_without_claims_notifies_nobody(store: Store, published: Published) -> None:
    await store.queues[0].release([])
    assert await published() == []


async def test_release_keeps_the_nonce_of_a_claim_whose_reply_was_lost(
    store: Store, impatient: Redis, replica: Replica
) -> None:
    other = replica(impatient, concurrency=10)
    await store.messages.create("held", accepted())
    held = (await other.queues[0].claim(1)).messages
    for name in ("lost", "next"):
        await store.messages.create(name, accepted())
    await lose_next_reply(impatient, store.keys[0].meta)
    with pytest.raises(StoreUnavailable):
        await other.queues[0].claim(1)
    await other.queues[0].release(held)
    claim = await other.queues[0].claim(1)
    assert [one.id for one in claim.messages] == ["lost"]
    assert await other.queues[0].settle(outcome(claim.messages[0]))
    assert [one.id for one in (await other.queues[0].claim(9)).messages] == ["held", "next"]


async def test_release_without_claims_forgets_the_process_after_a_claim(
    store: Store, redis: Redis
) -> None:
    await bring(store, "delivering")
    assert await redis.hkeys(f"{store.keys[0].base}workers") == [store.worker_id.encode()]
    await store.queues[0].release([])
    assert not await redis.exists(f"{store.keys[0].base}workers")
