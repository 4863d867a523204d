"""Open requests are limited by the bytes of their messages, as well as by slots."""

import asyncio

import pytest

from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.slots import Slots
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.store.queue import CLAIM_BATCH, CLAIM_BYTES
from scheduler_api.store.store import Store
from tests.delivery.conftest import Claims, Start
from tests.support.factories import accepted
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until

MIB = 1024**2
A_CLAIM = 4 * MIB
MEMORY = 10 * MIB
SLOTS = 8


@pytest.fixture
def leases() -> Leases:
    return Leases(15, SlotShares(SLOTS))


@pytest.fixture
def slots(leases: Leases) -> Slots:
    return Slots(SLOTS, leases, SlotShares(SLOTS), memory=MEMORY, claim_bytes=A_CLAIM)


def many_slots(memory: int) -> Slots:
    shares = SlotShares(4 * CLAIM_BATCH)
    leases = Leases(15, shares)
    return Slots(4 * CLAIM_BATCH, leases, shares, memory=memory, claim_bytes=A_CLAIM)


def test_reserve_counts_the_memory_of_claims_under_way() -> None:
    slots = many_slots(MEMORY)
    reserved = [slots.reserve() for _ in range(3)]
    assert reserved == [CLAIM_BATCH, CLAIM_BATCH, 0], "a third could bring too many bytes"
    slots.give_back(CLAIM_BATCH)
    assert slots.reserve() == CLAIM_BATCH


def test_reserve_allows_two_claims_with_any_memory() -> None:
    slots = many_slots(1)
    assert [slots.reserve() for _ in range(3)] == [CLAIM_BATCH, CLAIM_BATCH, 0]


async def test_free_counts_the_memory_of_open_messages(
    slots: Slots, leases: Leases, claim: Claims, receiver: Receiver, live_store: Store
) -> None:
    claimed = await claim(receiver.url, payload="x" * (7 * MIB))
    assert 7 * MIB < claimed.size < 7.1 * MIB
    wakeup = Wakeup()
    lease = Lease(live_store.queues[0], claimed, 0)
    leases.hold(lease, asyncio.create_task(wakeup.wait()))
    assert (slots.free, slots.reserve(), slots.only_kept_left) == (0, 0, False)
    slots.wait_for_slot(wakeup)
    slots.wake_next()
    assert not lease.task.done()
    leases.sent(lease)
    assert leases.bytes == 0
    assert slots.free > 0
    slots.wake_next()
    await asyncio.wait_for(lease.task, 5)


async def test_dispatcher_claims_large_messages_as_memory_becomes_free(
    start: Start, live_store: Store, receiver: Receiver
) -> None:
    receiver.hold.clear()
    size, count = 2 * MIB, 12
    new = accepted(webhookUrl=receiver.url, payload="x" * size)
    for number in range(count):
        await live_store.messages.create(f"{number}", new)
    dispatcher = await start(memory=MEMORY, max_body=size)
    most = 2 * (CLAIM_BYTES + size)
    await wait_until("the first requests", lambda: len(receiver.requests) >= 3)
    await asyncio.wait([asyncio.create_task(receiver.hold.wait())], timeout=0.3)
    assert dispatcher._leases.bytes <= most
    assert len(receiver.requests) <= most // size
    receiver.hold.set()
    await wait_until("all messages", lambda: len(receiver.requests) == count)
    assert sorted(receiver.ids()) == sorted(f"{number}" for number in range(count))
