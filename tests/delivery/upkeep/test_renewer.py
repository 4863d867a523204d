"""Leases are renewed before they end; requests that outlive their lease are aborted."""

import asyncio
import socket
import time

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.timing import ABORT_SHARE
from scheduler_api.delivery.upkeep.periodic import cancel_all
from scheduler_api.delivery.upkeep.renewer import abort_expired
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.delivery.upkeep.conftest import claim, running
from tests.support.factories import accepted
from tests.support.store_clock import Clock
from tests.support.waiting import wait_until

LEASE = 15.0  # seconds


def working() -> "asyncio.Task[None]":
    """A task that runs until it is cancelled."""

    async def work() -> None:
        await asyncio.Event().wait()

    return asyncio.create_task(work())


async def test_leases_renew_extends_only_leases_near_their_end(
    store: Store, clock: Clock, redis: Redis
) -> None:
    leases = Leases(LEASE, SlotShares(8))
    old, young = await claim(store, "old"), await claim(store, "young")
    forever = [working() for _ in range(2)]
    now = time.monotonic()
    leases.hold(Lease(store.queues[0], old, now + LEASE / 2), forever[0])
    leases.hold(Lease(store.queues[0], young, now + LEASE), forever[1])
    await clock.advance(5_000)
    await leases.renew(LEASE * 2 / 3)
    ends = [await redis.zscore(f"{store.keys[0].base}leases", name) for name in ("young", "old")]
    assert ends[0] is not None
    assert ends[1] == ends[0] + 5_000
    await cancel_all(forever)
    assert len(leases) == 0


async def test_leases_renew_makes_several_calls_for_many_leases(store: Store) -> None:
    leases = Leases(LEASE, SlotShares(8))
    tasks = []
    for n in range(CLAIM_BATCH + 1):
        await store.messages.create(f"m{n}", accepted(webhookUrl=f"http://127.0.0.1:2/{n}"))
    claimed = (await store.queues[0].claim(CLAIM_BATCH)).messages
    assert len(claimed) == CONCURRENCY
    for one in claimed * (CLAIM_BATCH // len(claimed) + 1):
        tasks.append(working())
        leases.hold(Lease(store.queues[0], one, 0), tasks[-1])
    await leases.renew(LEASE)
    assert not any(task.cancelling() for task in tasks)
    await cancel_all(tasks)


async def test_leases_renew_skips_a_partition_that_does_not_answer(
    store: Store, clock: Clock, redis: Redis
) -> None:
    leases, forever = Leases(LEASE, SlotShares(8)), [working() for _ in range(2)]
    claimed = await claim(store, "a")
    with socket.socket() as closed:  # bound, never listening
        closed.bind(("127.0.0.1", 0))
        away = connect(f"redis://127.0.0.1:{closed.getsockname()[1]}")
        leases.hold(Lease(Store(away).queues[0], claimed, 0), forever[0])
        leases.hold(Lease(store.queues[0], claimed, 0), forever[1])
        before = await redis.zscore(f"{store.keys[0].base}leases", "a")
        await clock.advance(5_000)
        with pytest.raises(StoreUnavailable):
            await leases.renew(LEASE)
        await close(away)
    assert before is not None
    assert await redis.zscore(f"{store.keys[0].base}leases", "a") == before + 5_000
    assert not any(task.cancelling() for task in forever)
    await cancel_all(forever)


async def test_abort_expired_cancels_a_request_that_outlives_its_lease(store: Store) -> None:
    leases = Leases(LEASE, SlotShares(8))
    claimed = await claim(store, "a")
    task = working()
    leases.hold(Lease(store.queues[0], claimed, time.monotonic() + LEASE), task)
    leases.abort_expired()
    assert not task.cancelling()
    ended = working()
    leases.hold(Lease(store.queues[0], claimed, time.monotonic()), ended)
    async with running(asyncio.create_task(abort_expired(leases, 0.001 / ABORT_SHARE))):
        await wait_until("the aborted request", ended.done)
    assert ended.cancelled()
    await cancel_all([task])


async def test_abort_expired_leaves_a_task_that_settles(store: Store) -> None:
    leases = Leases(LEASE, SlotShares(8))
    settling = working()
    lease = Lease(store.queues[0], await claim(store, "a"), time.monotonic())
    leases.hold(lease, settling)
    leases.sent(lease)
    leases.abort_expired()
    assert not settling.cancelling()
    await cancel_all([settling])


async def test_leases_renew_leaves_a_task_that_settles_if_refused(store: Store) -> None:
    leases = Leases(LEASE, SlotShares(8))
    settling, sending = working(), working()
    claimed = await claim(store, "a")
    lease = Lease(store.queues[0], claimed, time.monotonic())
    leases.hold(lease, settling)
    leases.sent(lease)
    leases.hold(Lease(store.queues[0], claimed, time.monotonic()), sending)
    await store.queues[0].release([claimed])
    await leases.renew(LEASE)
    assert (settling.cancelling(), sending.cancelling()) == (0, 1)
    await cancel_all([settling, sending])


async def test_leases_abort_expired_cancels_no_task_that_has_not_started(store: Store) -> None:
    leases = Leases(LEASE, SlotShares(8))
    lease, task = Lease(store.queues[0], await claim(store, "a"), 0), working()
    leases.hold(lease, task)
    with capture_logs() as logged:
        leases.abort_expired()  # the task would run no line of its code, and release no claim
        assert not task.cancelling()
        assert not leases.usable(lease)
        assert logged == []  # the task logs it, when it finds that its lease has ended
        await asyncio.sleep(0)
        leases.abort_expired()
    assert task.cancelling()
    assert [entry["event"] for entry in logged] == ["lease_lost"]
    await cancel_all(leases.tasks)
