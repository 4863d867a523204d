"""Claim → send → settle, within the slots of this process; drains on stop."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog

from scheduler_api.delivery.claimer import Claimer
from scheduler_api.delivery.delay_queue import DelayQueue
from scheduler_api.delivery.http.sender import (
    AttemptStart,
    LookupPostponed,
    NothingSent,
    Sender,
    Sent,
)
from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.outcomes import Outcomes
from scheduler_api.delivery.permits import Permits
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.slots import Slots
from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.timing import OUTAGE_SHARE
from scheduler_api.delivery.upkeep.periodic import cancel_all
from scheduler_api.delivery.upkeep.purger import purge
from scheduler_api.delivery.upkeep.renewer import abort_expired, renew
from scheduler_api.delivery.upkeep.sweeper import sweep
from scheduler_api.delivery.upkeep.trimmer import trim
from scheduler_api.domain.attempt import reached
from scheduler_api.domain.errors import DataRefused, Unavailable
from scheduler_api.store.claims import Claim
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.queue import CLAIM_BYTES, Queue
from scheduler_api.store.stored_bytes import Growth

log = structlog.get_logger()


class Dispatcher:
    """Sends due messages of all partitions, at most `slots` requests at once."""

    def __init__(
        self,
        queues: Sequence[Queue],
        notifier: Notifier,
        sender: Sender,
        growth: Growth,
        check: Callable[[int], Awaitable[None]],
        *,
        slots: int,
        lease: timedelta,
        memory: int = sys.maxsize,
        max_body: int = 0,
    ) -> None:
        """`queues`: one a partition; `check`: refuses data of a partition that this process must
        not use, by DataRefused; called when its store has answered.

        `memory`: bytes of the messages that are sent at once; `max_body`: bytes of one body.
        """
        self._queues = queues
        self._notifier = notifier
        self._sender = sender
        self._growth = growth
        self._lease = lease.total_seconds()
        self._health = [StoreHealth(it.partition, self._lease * OUTAGE_SHARE) for it in queues]
        self._outcomes = Outcomes(self._health)
        shares = SlotShares(slots)
        self._leases = Leases(self._lease, shares)
        self._slots = Slots(
            slots, self._leases, shares, memory=memory, claim_bytes=CLAIM_BYTES + max_body
        )
        self._permits = Permits(
            self._leases, shares, self._outcomes, self._start, self._slots.wake_next
        )
        self._delay_queue = DelayQueue()
        self._claimers = [
            Claimer(queue, self._slots, health, check, self._launch, self._permits, self._lease)
            for queue, health in zip(queues, self._health, strict=True)
        ]
        self._stopping = False
        self._hurry = asyncio.Event()
        self._claiming: list[asyncio.Task[None]] = []
        self._upkeep: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start to claim and send."""
        self._claiming = [asyncio.create_task(claimer.run()) for claimer in self._claimers]
        for task in self._claiming:
            task.add_done_callback(self._claiming_ended)
        self._upkeep = [
            asyncio.create_task(self._notifier.listen(self._wake)),
            asyncio.create_task(renew(self._leases, self._lease)),
            asyncio.create_task(abort_expired(self._leases, self._lease)),
            asyncio.create_task(trim(self._queues, self._growth)),
            *(asyncio.create_task(purge(queue)) for queue in self._queues),
            *(asyncio.create_task(sweep(queue)) for queue in self._queues),
        ]

    def _claiming_ended(self, _: asyncio.Task[None]) -> None:
        # If one partition's data are refused, all are: they are parts of one data set.
        self.stop()

    def _wake(self, partition: int) -> None:
        self._claimers[partition].wake()

    @property
    def running(self) -> bool:
        """Whether every partition is being claimed from, and its store answers."""
        claiming = bool(self._claiming) and not any(task.done() for task in self._claiming)
        return claiming and all(it.answers for it in self._health) and not self._stopping

    @property
    def busy(self) -> bool:
        """Whether it holds any message."""
        return len(self._leases) > 0

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._outcomes.stop()
        self._permits.stop()
        for claimer in self._claimers:
            claimer.stop()

    def hurry(self) -> None:
        """Do not wait for open requests any longer."""
        self._hurry.set()

    async def drain(self, grace: timedelta) -> None:
        """Stop; let open requests end within `grace`, cut off the others; settle all of them.

        A message whose request is cut off is retried.
        """
        self.stop()
        for task in self._claiming:
            with suppress(DataRefused):
                await task
        await self._wait_for_open(grace.total_seconds())
        for lease in self._leases.sending:
            lease.task.cancel()
        await asyncio.gather(*self._leases.tasks, return_exceptions=True)
        await self._permits.released()
        self._delay_queue.close()
        await asyncio.gather(*(_unregister(queue) for queue in self._queues))
        await cancel_all(self._upkeep)

    async def _wait_for_open(self, grace: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        open_requests = asyncio.gather(*self._leases.tasks, return_exceptions=True)
        either = (open_requests, hurry)
        await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()

    def _launch(self, queue: Queue, claim: Claim) -> None:
        now, queued = queue.now(), []
        for claimed in claim.messages:
            lease = Lease(queue, claimed, claim.deadline)
            if claimed.permit:
                self._start(lease, now)
            else:
                queued.append(lease)
        if queued:
            self._permits.queue(queued)

    def _start(self, lease: Lease, now: datetime) -> None:
        deliver = self._deliver if lease.claimed.due_at <= now else self._deliver_when_due
        self._leases.hold(lease, asyncio.create_task(deliver(lease)))

    async def _deliver_when_due(self, lease: Lease) -> None:
        try:
            await self._delay_queue.wait(lease.queue.instant(lease.claimed.due_at))
        except asyncio.CancelledError:  # the lease was lost, or the process stops
            self._end_request(lease, None)
            await self._outcomes.release(lease.queue, [lease.claimed])
        else:
            await self._deliver(lease)

    async def _deliver(self, lease: Lease) -> None:
        sent = None
        try:
            sent = await self._send(lease)
        except NothingSent as reason:
            if isinstance(reason, LookupPostponed):
                log.info("lookup_postponed", message_id=lease.claimed.id)
            else:
                self._slots.pause()
        finally:
            before_settle = self._end_request(lease, sent)
        if before_settle is not None:
            await before_settle
        if sent:
            await self._outcomes.settle(lease.queue, lease.claimed, sent)
        else:
            await self._outcomes.release(lease.queue, [lease.claimed])

    async def _send(self, lease: Lease) -> Sent | None:
        """The attempt; None if there was none, or the lease was lost."""
        claimed = lease.claimed
        if not self._leases.usable(lease):
            log.warning("lease_lost", message_id=claimed.id)
            return None
        start = AttemptStart(lease.queue.now(), time.monotonic())
        try:
            return await self._sender.send(claimed, start)
        except asyncio.CancelledError:
            if not self._stopping:
                return None
            return self._sender.cut_off(claimed, start)

    def _end_request(self, lease: Lease, sent: Sent | None) -> Awaitable[None] | None:
        """Returns what to wait for before the claim is ended; `sent`: None without an attempt."""
        self._leases.sent(lease)
        later = None
        if self._permits.lines:
            later = self._permits.pass_on(lease, reached=sent is not None and _reached(sent))
        self._slots.wake_next()
        return later


def _reached(sent: Sent) -> bool:
    """Whether the destination was certainly reached, even if it then dropped the connection."""
    attempt = sent.attempt
    return reached(attempt.status, attempt.error) is True


async def _unregister(queue: Queue) -> None:
    with suppress(Unavailable):
        await queue.release([])
