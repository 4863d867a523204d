"""Claim leases messages that wait in the process for a permit, in the order of their due times."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits, Rate
from scheduler_api.store.claims import Claimed, Share
from scheduler_api.store.store import Store
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.store_clock import Clock

HOST = "127.0.0.1:3001"
OPEN = -2  # the destination answers quickly and has requests, see claim.lua


async def create(store: Store, *names: str) -> None:
    asked = accepted(webhookUrl=f"http://{HOST}/")
    await asyncio.gather(*(store.messages.create(name, asked) for name in names))


async def claim(store: Store, known: int, waiting: int | None = None) -> list[Claimed]:
    """`known`: what the process knows of its requests; `waiting`: None without a line."""
    name = HOST.encode()
    share = Share(slots=64, free=60, open=[name, known])
    if waiting is not None:
        share = share._replace(lines=[name, waiting], queued=waiting)
    return (await store.queues[0].claim(100, 0.0, share)).messages


async def fill(store: Store, clock: Clock) -> list[Claimed]:
    """Two messages that have all permits; six older than all later ones are parked."""
    await store.destinations.set_limit(HOST, Limits(concurrency=2))
    await create(store, "a", "b")
    holders = await claim(store, 0)
    await clock.advance(10)
    await create(store, *(f"old{n}" for n in range(6)))
    assert await claim(store, len(holders)) == []
    await clock.advance(10)
    return holders


async def test_claim_queues_no_new_message_before_one_that_is_parked(
    store: Store, clock: Clock
) -> None:
    queued = await fill(store, clock)
    sent = []
    for turn in range(4):
        await create(store, f"new{turn}-0", f"new{turn}-1")
        waiting = len(queued) if turn else 0
        queued += await claim(store, OPEN, waiting)
        ended, queued = queued[:2], queued[2:]
        for claimed in ended:
            claimed.permit = False  # it was passed on
            sent.append(claimed.id)
        await asyncio.gather(*(store.queues[0].settle(outcome(claimed)) for claimed in ended))
        await clock.advance(10)
    assert set(sent[:2]) == {"a", "b"}
    assert set(sent[2:]) == {f"old{n}" for n in range(6)}


async def test_claim_parks_a_new_message_if_parked_ones_are_left(
    store: Store, clock: Clock
) -> None:
    await fill(store, clock)
    await create(store, "new")
    assert await claim(store, OPEN, 6) == []
    assert (await store.destinations.get(HOST)).waiting == 7


async def test_claim_queues_a_new_message_if_none_waits_in_the_process(
    store: Store, clock: Clock
) -> None:
    await fill(store, clock)
    await create(store, "new")
    (queued,) = await claim(store, OPEN)
    assert (queued.id, queued.permit) == ("new", False)


async def test_claim_queues_a_new_message_if_none_is_parked(store: Store) -> None:
    await store.destinations.set_limit(HOST, Limits(concurrency=2))
    await create(store, "a", "b")
    await claim(store, 0)
    await create(store, "c")
    (queued,) = await claim(store, OPEN, 0)
    assert (queued.id, queued.permit) == ("c", False)


async def test_claim_queues_parked_messages_behind_those_to_which_it_grants_permits(
    store: Store, clock: Clock
) -> None:
    holders = await fill(store, clock)
    await asyncio.gather(*(store.queues[0].settle(outcome(one)) for one in holders))
    assert store.queues[0].parked == {HOST.encode()}
    claims = await claim(store, -1, 0)
    assert [one.permit for one in claims] == [True, True, False, False, False, False]


async def test_claim_queues_nothing_without_a_request_to_wait_for(
    store: Store, clock: Clock
) -> None:
    await fill(store, clock)
    await create(store, "new")
    assert await claim(store, -1, 0) == []
    assert await claim(store, -1) == []


async def test_settle_reports_no_parked_messages_if_there_are_none(store: Store) -> None:
    await create(store, "a")
    (one,) = await claim(store, 0)
    await store.queues[0].settle(outcome(one))
    assert store.queues[0].parked == set()


async def test_claim_leases_a_message_once_that_is_due_and_parked(
    store: Store, clock: Clock, redis: Redis
) -> None:
    await fill(store, clock)
    base = store.keys[0].base
    await redis.zadd(f"{base}due", {"old1": 1})  # by hand
    claims = await claim(store, OPEN, 0)
    assert sorted(one.id for one in claims) == [f"old{n}" for n in range(6)]
    assert await redis.zcard(f"{base}due") == 0
    await invariants.check(redis, store.keys[0], 2)


@pytest.mark.parametrize(
    ("limits", "asks"),
    [
        (Limits(concurrency=2), True),
        (Limits(concurrency=1), False),
        (Limits(concurrency=2, paused=True), False),
        (Limits(concurrency=2, rate=Rate(1, "h")), False),
    ],
)
async def test_settle_asks_for_a_claim_if_messages_may_wait_for_the_permits_passed_on(
    limits: Limits, asks: bool, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    holders = await fill(store, clock)
    await create(store, "queued0", "queued1")
    queued = await claim(store, OPEN)
    await store.destinations.set_limit(HOST, limits)
    await claim(store, OPEN, len(queued))  # it checks what has opened
    notified: list[int] = []
    monkeypatch.setattr(store.notifier, "notify", notified.append)
    for claimed in holders:
        claimed.permit = False  # it was passed on
    await asyncio.gather(*(store.queues[0].settle(outcome(claimed)) for claimed in holders))
    assert (notified, store.queues[0].parked) == (([0], {HOST.encode()}) if asks else ([], set()))


async def test_list_destinations_shows_one_whose_messages_all_wait_for_a_permit(
    store: Store,
) -> None:
    await create(store, "a", "b", "c", "d")
    holders = await claim(store, 0)
    await create(store, "e")
    (queued,) = await claim(store, OPEN, 0)
    assert not queued.permit
    await asyncio.gather(*(store.queues[0].settle(outcome(one)) for one in holders))
    (found,) = (await store.destinations.list(10)).rows
    assert (found.name, found.in_flight, found.waiting) == (HOST, 0, 1)
