"""Slots are reserved before a claim; waiting claimers get them in turn."""

import asyncio

import pytest
from structlog.testing import capture_logs

from scheduler_api.delivery.leases import Leases
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.slots import Slots
from scheduler_api.delivery.wakeup import Wakeup


def made(count: int) -> Slots:
    shares = SlotShares(count)
    return Slots(count, Leases(15, shares), shares)


@pytest.fixture
def slots() -> Slots:
    """Eight free slots."""
    return made(8)


async def woken(wakeup: Wakeup) -> bool:
    """Whether it wakes within 0.1 s, far below the safety poll."""
    try:
        async with asyncio.timeout(0.1):
            await wakeup.wait()
    except TimeoutError:
        return False
    return True


def test_reserve_takes_slots_until_give_back(slots: Slots) -> None:
    assert slots.reserve() == 8
    assert slots.reserve() == 0
    slots.give_back(8)
    assert slots.free == 8


def test_reserve_takes_at_most_a_claim_batch() -> None:
    slots = made(250)
    assert [slots.reserve() for _ in range(4)] == [100, 100, 50, 0]


async def test_wake_next_wakes_waiting_claimers_in_turn(slots: Slots) -> None:
    first, second = Wakeup(), Wakeup()
    slots.wait_for_slot(first)
    slots.wait_for_slot(second)
    slots.wake_next()
    assert await woken(first)
    assert not await woken(second)
    slots.stop_waiting(first)
    slots.wait_for_slot(first)
    slots.wake_next()
    assert await woken(second)
    assert not await woken(first)


async def test_wake_next_waits_for_more_slots_if_few_are_free(slots: Slots) -> None:
    wakeup = Wakeup()
    slots.wait_for_slot(wakeup)
    slots.reserve()
    slots.give_back(1)
    assert slots.scarce
    slots.wake_next()
    assert await woken(wakeup)


async def test_wake_next_wakes_none_without_a_free_slot(slots: Slots) -> None:
    wakeup = Wakeup()
    slots.wait_for_slot(wakeup)
    slots.reserve()
    slots.wake_next()
    assert not await woken(wakeup)


async def test_pause_leaves_no_slot_free_for_a_while(
    slots: Slots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler_api.delivery.slots.SHORTAGE_PAUSE", 0.05)
    waiting = Wakeup()
    slots.wait_for_slot(waiting)
    with capture_logs() as logs:
        slots.pause()
        slots.pause()
    assert [event["event"] for event in logs] == ["sockets_exhausted"]
    assert slots.reserve() == 0
    slots.wake_next()
    assert await woken(waiting), "in the end"
    assert slots.reserve() == 8
