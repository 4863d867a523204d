"""A permit passes from a request that has ended to the message that waits behind it."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from scheduler_api.delivery import permits as module
from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.outcomes import Outcomes
from scheduler_api.delivery.permits import Permits
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.timing import MAX_QUEUED, QUICK_REQUEST
from scheduler_api.domain.destination import Limits
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.store import Store
from tests.support.factories import accepted
from tests.support.waiting import wait_until

LEASE = 15.0  # seconds
HOST, OTHER = "http://127.0.0.1:2/", "http://127.0.0.1:3/"


class Process:
    """What a dispatcher has beside its permits: leases, shares of slots, open requests."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.shares = SlotShares(64)
        self.leases = Leases(LEASE, self.shares)
        self.health = [StoreHealth(0, LEASE)]
        self.outcomes = Outcomes(self.health)
        self.started: list[str] = []
        self.woken = 0
        self.later: Awaitable[None] | None = None  # what the last ended request waits for
        self.permits = Permits(self.leases, self.shares, self.outcomes, self.start, self.wake)

    def wake(self) -> None:
        self.woken += 1

    def start(self, lease: Lease, now: datetime) -> None:
        """As the dispatcher would, but the request ends only by `end`."""
        assert timedelta(0) <= lease.queue.now() - now < timedelta(seconds=5)
        self.started.append(lease.claimed.id)
        self.leases.hold(lease, asyncio.create_task(asyncio.sleep(0)))
        self.leases._held.pop(lease.task)
        lease.task.remove_done_callback(self.leases._ended)

    async def leased(self, *ids: str, url: str = HOST) -> list[Lease]:
        """Leases of new messages, in this order."""
        found = {}
        for message_id in ids:
            await self.store.messages.create(message_id, accepted(webhookUrl=url))
            (claimed,) = (await self.store.queues[0].claim(1)).messages
            found[claimed.id] = Lease(self.store.queues[0], claimed, time.monotonic() + LEASE)
        return [found[message_id] for message_id in ids]

    async def sending(self, message_id: str, url: str = HOST) -> Lease:
        """A message with an open request, and a permit."""
        (lease,) = await self.leased(message_id, url=url)
        self.start(lease, lease.queue.now())
        return lease

    async def queued(self, *ids: str, url: str = HOST) -> list[Lease]:
        """Messages that wait behind it."""
        leases = await self.leased(*ids, url=url)
        for lease in leases:
            lease.claimed.permit = False
        self.permits.queue(leases)
        return leases

    def end(self, lease: Lease, *, reached: bool = True) -> bool:
        """The request has ended → whether its permit was passed on."""
        self.leases.sent(lease)
        self.later = self.permits.pass_on(lease, reached=reached)
        return not lease.claimed.permit

    async def due_again(self) -> set[str]:
        """The ids of messages that were given back."""
        await self.permits.released()
        assert not self.leases.queued
        return {it.id for it in (await self.store.queues[0].claim(100)).messages}


@pytest.fixture
async def process(store: Store) -> AsyncIterator[Process]:
    for url in (HOST, OTHER):
        await store.destinations.set_limit(url.split("/")[2], Limits(concurrency=10))
    process = Process(store)
    yield process
    process.permits.stop()
    await process.permits.released()


async def test_pass_on_starts_the_queued_messages_in_order(process: Process) -> None:
    first = await process.sending("a")
    b, c = await process.queued("b", "c")
    assert process.end(first)
    assert process.end(b)
    assert not process.end(c)
    assert process.started == ["a", "b", "c"]
    assert not process.leases.queued
    assert process.leases.bytes == 0


async def test_pass_on_moves_the_permit(process: Process) -> None:
    first = await process.sending("a")
    (b,) = await process.queued("b")
    process.end(first)
    assert (first.claimed.permit, b.claimed.permit) == (False, True)
    assert not process.end(b)
    assert b.claimed.permit


async def test_pass_on_starts_only_messages_of_the_same_destination(process: Process) -> None:
    first, other = await process.sending("a"), await process.sending("other", OTHER)
    await process.queued("b")
    assert not process.end(other)
    assert other.claimed.permit
    assert process.end(first)


async def not_reached(process: Process, first: Lease, _: Lease) -> bool:
    return process.end(first, reached=False)


async def slow_request(process: Process, first: Lease, _: Lease) -> bool:
    began = process.shares._open[first.claimed.destination].began
    began[first] -= QUICK_REQUEST
    return process.end(first)


async def lost_lease(process: Process, first: Lease, _: Lease) -> bool:
    first.deadline = time.monotonic()
    return process.end(first)


async def lost_lease_of_the_queued(process: Process, first: Lease, queued: Lease) -> bool:
    queued.deadline = -math.inf
    return process.end(first)


@pytest.mark.parametrize("how", [not_reached, slow_request, lost_lease, lost_lease_of_the_queued])
async def test_pass_on_gives_back_the_queued_messages_after(
    how: Callable[[Process, Lease, Lease], Awaitable[bool]], process: Process
) -> None:
    first = await process.sending("a")
    b, _ = await process.queued("b", "c")
    assert not await how(process, first, b)
    assert first.claimed.permit
    assert process.started == ["a"]
    assert await process.due_again() == {"b", "c"}


async def test_pass_on_after_a_slow_request_leaves_the_messages_to_those_that_are_open(
    process: Process,
) -> None:
    """One slow request among many quick ones."""
    first, other = await process.sending("a"), await process.sending("other")
    await process.queued("b")
    assert not await slow_request(process, first, first)
    assert first.claimed.permit
    assert process.end(other), "it has passed its permit on: the destination is quick again"
    assert process.started == ["a", "other", "b"]


async def test_queue_gives_back_messages_without_an_open_request_before_them(
    process: Process,
) -> None:
    await process.sending("other", OTHER)
    await process.queued("b")
    assert await process.due_again() == {"b"}


async def test_queued_messages_are_given_back_now_and_then_so_that_the_store_recounts(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 0.4)
    monkeypatch.setattr(module, "RECOUNT_INTERVAL", 0.0)
    first = await process.sending("a")
    began = time.monotonic()
    await process.queued("b")
    await asyncio.sleep(0.1)
    assert process.end(first)
    b = process.leases.sending.copy().pop()
    await process.queued("c")
    await wait_until("it is given back", lambda: not process.leases.queued)
    assert time.monotonic() - began < 0.4, "it waited for less than the time limit"
    assert not process.end(b)
    assert process.woken == 1
    assert await process.due_again() == {"c"}


async def test_queue_gives_back_messages_that_wait_too_long(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 0.2)
    began = time.monotonic()
    await process.sending("a")
    await process.sending("other", OTHER)
    await process.queued("b")
    await process.queued("c", url=OTHER)
    await wait_until("all are given back", lambda: not process.leases.queued)
    assert time.monotonic() - began >= 0.1
    assert await process.due_again() == {"b", "c"}


async def test_queue_gives_back_only_those_that_wait_too_long(process: Process) -> None:
    await process.sending("a")
    b, _ = await process.queued("b", "c")
    (line,) = process.permits.lines.values()
    line.waiting[0] = (time.monotonic() - MAX_QUEUED, b)
    process.permits._give_back_old()
    await process.permits.released()
    assert [lease.claimed.id for lease in process.leases.queued] == ["c"]


async def test_waiting_names_the_lines_in_turn(process: Process) -> None:
    await process.sending("a")
    await process.sending("other", OTHER)
    await process.queued("b")
    await process.queued("c", url=OTHER)
    queue = process.store.queues[0]
    first, second, third = (list(process.permits.waiting(queue)) for _ in range(3))
    assert first == second[::-1] == third


async def test_awaiting_keeps_ended_requests_for_a_short_time_only(process: Process) -> None:
    a, b = await process.sending("a"), await process.sending("b")
    await process.queued("c")
    assert process.end(a)
    with process.permits.awaiting(process.store.queues[0]):
        assert not process.end(b)
        assert process.later is not None
        await asyncio.wait_for(asyncio.ensure_future(process.later), 5)
        assert process.permits.pass_on(b, reached=True) is None, "the claim takes too long"


async def test_queue_passes_no_permit_of_a_lease_that_renew_reported_as_lost(
    process: Process,
) -> None:
    a, b = await process.sending("a"), await process.sending("b")
    await process.queued("c")
    (d,) = await process.leased("d")
    d.claimed.permit = False
    with process.permits.awaiting(process.store.queues[0]):
        assert process.end(a)
        assert not process.end(b)
        process.leases._abort(b)
        process.permits.queue([d])
    assert process.started == ["a", "b", "c"]
    assert await process.due_again() == {"d"}


async def test_pass_on_keeps_the_permit_for_messages_of_a_claim_under_way(
    process: Process,
) -> None:
    a, b = await process.sending("a"), await process.sending("b")
    await process.queued("c")
    c, d = await process.leased("d", "e")
    c.claimed.permit = d.claimed.permit = False
    with process.permits.awaiting(process.store.queues[0]):
        assert process.end(a)
        assert not process.end(b)
        assert process.later is not None
        process.permits.queue([c, d])
        assert process.started == ["a", "b", "c", "d"]
        assert not b.claimed.permit
        await asyncio.wait_for(asyncio.ensure_future(process.later), 1)
    assert process.permits.waiting(process.store.queues[0]) == {c.claimed.destination: 1}


async def test_awaiting_lets_ended_requests_be_settled_after_a_claim_without_messages(
    process: Process,
) -> None:
    a, b = await process.sending("a"), await process.sending("b")
    await process.queued("c")
    assert process.end(a)

    def claim() -> None:
        with process.permits.awaiting(process.store.queues[0]):
            assert not process.end(b)
            raise StoreUnavailable

    with pytest.raises(StoreUnavailable):
        claim()
    assert process.later is not None
    await asyncio.wait_for(asyncio.ensure_future(process.later), 1)
    assert b.claimed.permit


async def test_pass_on_does_not_keep_the_permit_without_a_claim_under_way(
    process: Process,
) -> None:
    a, b = await process.sending("a"), await process.sending("b")
    await process.queued("c")
    process.end(a)
    assert not process.end(b)
    assert process.later is None


async def test_pass_on_gives_a_permit_back_to_the_store_after_many_passes(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PASSES", 2)
    first, other = await process.sending("a"), await process.sending("other")
    b, c, _, _ = await process.queued("b", "c", "d", "e")
    assert process.end(first)
    assert process.end(b)
    assert not process.end(c)
    assert c.claimed.permit
    assert process.started == ["a", "other", "b", "c"]
    assert process.end(other)
    (d,) = process.leases.sending
    d.passes = 2
    assert not process.end(d)
    assert await process.due_again() == {"e"}, "no open request is left"


async def test_a_line_that_is_not_used_is_forgotten(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED", 0.1)
    a = await process.sending("a")
    await process.queued("b")
    process.end(a)
    assert process.permits.waiting(process.store.queues[0]) == {a.claimed.destination: 0}
    await wait_until("it is forgotten", lambda: not process.permits.lines)
    assert process.permits.waiting(process.store.queues[0]) == {}


async def test_stop_gives_back_all(process: Process) -> None:
    first = await process.sending("a")
    await process.sending("other", OTHER)
    await process.queued("b")
    await process.queued("c", url=OTHER)
    process.permits.stop()
    assert not process.end(first)
    assert await process.due_again() == {"b", "c"}


async def test_leases_renews_a_queued_message_until_it_is_given_back(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    await process.sending("a")
    (b,) = await process.queued("b")
    released = asyncio.Event()

    async def release(*_: object) -> None:
        await released.wait()

    monkeypatch.setattr(process.outcomes, "release", release)
    process.permits.stop()
    await asyncio.sleep(0)
    b.deadline = 0.0
    await process.leases.renew(LEASE)
    assert b.deadline > time.monotonic()
    released.set()
    await process.permits.released()
    assert not process.leases.queued


async def test_leases_renew_marks_a_queued_message_that_was_lost(process: Process) -> None:
    first = await process.sending("a")
    (b,) = await process.queued("b")
    await process.store.queues[0].release([b.claimed])
    b.deadline = 0.0
    await process.leases.renew(LEASE)
    assert not process.end(first)


async def test_queued_messages_are_given_back_after_an_outage_of_the_store(
    process: Process, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, calls = store.queues[0], 0
    release = queue.release

    async def away_once(claims: list[object]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StoreUnavailable
        await release(claims)  # type: ignore[arg-type]

    monkeypatch.setattr(queue, "release", away_once)
    await process.sending("a")
    await process.queued("b")
    process.permits.stop()
    assert await process.due_again() == {"b"}
    assert calls == 2


async def test_released_waits_for_all_after_an_error_of_the_program(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def release(*_: object) -> None:
        raise ValueError

    monkeypatch.setattr(process.outcomes, "release", release)
    await process.sending("a")
    await process.queued("b")
    process.permits.stop()
    await process.permits.released()
    assert not process.leases.queued
