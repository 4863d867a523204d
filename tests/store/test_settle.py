"""Settle ends a claim once, with its outcome, if the process still holds it."""

import asyncio
from datetime import timedelta

import msgspec
import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import MessageNotFound
from scheduler_api.store import queue
from scheduler_api.store.claims import Claimed
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.store.conftest import Replica
from tests.support.factories import accepted
from tests.support.message_states import (
    Verdict,
    attempt,
    bring,
    everything,
    fill,
    outcome,
)
from tests.support.store_clock import Clock

STATES: dict[Verdict, str] = {"delivered": "delivered", "failed": "failed", "retry": "retrying"}
VERDICTS = tuple(STATES)


async def claim_one(store: Store, message_id: str = "a") -> Claimed:
    """A new message, leased."""
    await store.messages.create(message_id, accepted())
    return (await store.queues[0].claim(1)).messages[0]


@pytest.mark.parametrize(("verdict", "state"), STATES.items())
async def test_settle_puts_a_message_into_the_state_of_its_outcome(
    store: Store, verdict: Verdict, state: str
) -> None:
    claimed = await claim_one(store)
    assert await store.queues[0].settle(outcome(claimed, verdict))
    found = await store.messages.get("a")
    assert (found.state, found.attempts, found.attempts_made) == (state, [attempt()], 1)


async def test_settle_counts_a_retry_delay_from_the_clock_of_the_store(
    store: Store, clock: Clock
) -> None:
    claimed = await claim_one(store)
    await clock.advance(2_500)
    await store.queues[0].settle(outcome(claimed, "retry", timedelta(seconds=5)))
    assert (await store.messages.get("a")).next_attempt_at == from_ms(NOW + 7_500)
    await clock.advance(4_999)
    assert (await store.queues[0].claim(1)).messages == []
    await clock.advance(1)
    assert (await store.queues[0].claim(1)).messages[0].attempts == 1


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_settle_ends_a_claim_once(store: Store, redis: Redis, verdict: Verdict) -> None:
    claimed = await claim_one(store)
    assert await store.queues[0].settle(outcome(claimed, verdict))
    before = await everything(redis, store.keys[0])
    assert not await store.queues[0].settle(outcome(claimed, verdict))
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.parametrize("verdict", VERDICTS)
@pytest.mark.parametrize("other", VERDICTS)
async def test_settle_takes_the_first_of_two_outcomes_in_one_call(
    store: Store, verdict: Verdict, other: Verdict
) -> None:
    claimed = await claim_one(store)
    both = (outcome(claimed, verdict), outcome(claimed, other))
    assert await asyncio.gather(*map(store.queues[0].settle, both)) == [True, False]
    found = await store.messages.get("a")
    assert (found.state, found.attempts_made) == (STATES[verdict], 1)


async def test_settle_puts_each_message_of_a_call_into_its_state(store: Store) -> None:
    claims = await fill(store)
    verdicts = (*VERDICTS, "delivered")
    outcomes = map(outcome, claims, verdicts)
    assert all(await asyncio.gather(*map(store.queues[0].settle, outcomes)))
    states = [(await store.messages.get(claimed.id)).state for claimed in claims]
    assert states == [STATES[verdict] for verdict in verdicts]


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_settle_refuses_a_claim_that_was_reaped_and_claimed_again(
    store: Store, redis: Redis, clock: Clock, verdict: Verdict
) -> None:
    stale = await claim_one(store)
    await clock.advance(15_000)
    await store.queues[0].reap()
    current = (await store.queues[0].claim(1)).messages[0]
    before = await everything(redis, store.keys[0])
    assert not await store.queues[0].settle(outcome(stale, verdict))
    assert await everything(redis, store.keys[0]) == before
    assert await store.queues[0].settle(outcome(current, verdict))


async def test_settle_refuses_a_claim_of_another_process(store: Store, replica: Replica) -> None:
    other = replica()
    claimed = await claim_one(store)
    assert not await other.queues[0].settle(outcome(claimed))
    assert (await store.messages.get("a")).state == "delivering"


async def test_settle_refuses_a_claim_with_another_fence(store: Store) -> None:
    claimed = await claim_one(store)
    forged = msgspec.structs.replace(claimed, fence=claimed.fence + 1)
    assert not await store.queues[0].settle(outcome(forged))
    assert (await store.messages.get("a")).state == "delivering"


async def test_settle_of_a_stale_claim_leaves_the_others_of_the_call(store: Store) -> None:
    claims = await fill(store)
    forged = msgspec.structs.replace(claims[1], fence=claims[1].fence + 1)
    results = await asyncio.gather(
        *(store.queues[0].settle(outcome(one)) for one in (claims[0], forged, claims[2]))
    )
    assert results == [True, False, True]


@pytest.mark.parametrize("verdict", VERDICTS)
async def test_settle_unparks_the_message_that_was_due_first(
    store: Store, verdict: Verdict
) -> None:
    claims = await fill(store)
    for name in ("first", "second"):
        await store.messages.create(name, accepted())
    assert (await store.queues[0].claim(10)).messages == []
    await store.queues[0].settle(outcome(claims[0], verdict))
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == ["first"]
    assert (await store.messages.get("second")).hold


async def test_settle_unparks_one_message_for_each_freed_slot(store: Store) -> None:
    claims = await fill(store)
    for number in range(CONCURRENCY + 1):
        await store.messages.create(f"parked-{number}", accepted())
    await store.queues[0].claim(10)
    await asyncio.gather(*(store.queues[0].settle(outcome(one)) for one in claims))
    waiting = [f"parked-{number}" for number in range(CONCURRENCY)]
    assert [one.id for one in (await store.queues[0].claim(10)).messages] == waiting


async def test_settle_notifies_this_process_of_an_unparked_message_or_a_new_head(
    store: Store, wakes: list[str]
) -> None:
    claims = await fill(store)
    await store.messages.create("parked", accepted(delay=0))
    await store.queues[0].claim(10)
    wakes.clear()
    await store.queues[0].settle(outcome(claims[0]))
    assert wakes == ["wake"]
    await store.queues[0].settle(outcome(claims[1], "retry"))  # later than the head
    assert wakes == ["wake"]
    await store.queues[0].claim(10)
    await store.queues[0].settle(outcome(claims[2], "retry", timedelta(seconds=1)))
    assert wakes == ["wake", "wake"]


@pytest.mark.parametrize("state", FINISHED)
async def test_settle_forgets_a_finished_message_without_retention(
    store: Store, state: Verdict, replica: Replica
) -> None:
    forgetful = replica(keep_delivered=timedelta(0), keep_failed=timedelta(0))
    assert await forgetful.queues[0].settle(outcome(await claim_one(forgetful), state))
    with pytest.raises(MessageNotFound):
        await store.messages.get("a")


@pytest.mark.parametrize("state", FINISHED)
async def test_settle_forgets_the_oldest_of_a_full_finished_state(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    monkeypatch.setattr(queue, "MAX_KEPT", 3)
    for name in ("a", "b", "c"):
        await bring(store, state, name)
        await clock.advance(1)
    assert (await store.messages.get("a")).state == state
    await bring(store, state, "d")
    kept = [name for name in "abcd" if await exists(store, name)]
    assert kept == ["b", "c", "d"]


@pytest.mark.parametrize("state", FINISHED)
async def test_settle_of_more_messages_than_a_finished_state_keeps(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, state: Verdict
) -> None:
    monkeypatch.setattr(queue, "MAX_KEPT", 3)
    await bring(store, state, "old")
    await clock.advance(1)
    claims = await fill(store)
    assert len(claims) > queue.MAX_KEPT
    await asyncio.gather(*(store.queues[0].settle(outcome(one, state)) for one in claims))
    kept = [name for name in ("old", *(one.id for one in claims)) if await exists(store, name)]
    assert kept == [one.id for one in claims[1:]]


@pytest.mark.parametrize("state", FINISHED)
async def test_settle_forgets_two_for_each_new_one_after_max_kept_is_lowered(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    for name in "abcde":
        await bring(store, state, name)
        await clock.advance(1)
    monkeypatch.setattr(queue, "MAX_KEPT", 1)
    await bring(store, state, "f")
    kept = [name for name in "abcdef" if await exists(store, name)]
    assert kept == ["c", "d", "e", "f"]


async def exists(store: Store, message_id: str) -> bool:
    try:
        await store.messages.get(message_id)
    except MessageNotFound:
        return False
    return True
