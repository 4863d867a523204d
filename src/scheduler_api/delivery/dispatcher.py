"""Claim → send → settle, bounded by slots, over all partitions; drains on stop."""

import asyncio
import random
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import structlog

from scheduler_api.delivery.claimer import Claimer
from scheduler_api.delivery.delay_queue import DelayQueue
from scheduler_api.delivery.http.sender import LookupNeverBegan, NothingSent, Sender, Sent, Start
from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.slot_shares import Shares
from scheduler_api.delivery.slots import Slots
from scheduler_api.delivery.upkeep import housekeeping
from scheduler_api.domain.errors import DataRefused, Unavailable
from scheduler_api.domain.retry import Delivered, Failed, decide
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.queue import CLAIM_BYTES, Claim, Claimed, Outcome, Queue
from scheduler_api.store.stored_bytes import Growth

log = structlog.get_logger()


class Dispatcher:
    """Sends what is due, `slots` requests at a time."""

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
        """`queues`: one a partition; `check`: asked whenever one was found. Raises: DataRefused.

        `memory`: bytes of the messages that are sent at once; `max_body`: of one.
        """
        self._queues = queues
        self._notifier = notifier
        self._sender = sender
        self._growth = growth
        self._lease = lease.total_seconds()
        shares = Shares(slots)
        self._leases = Leases(self._lease, shares)
        self._slots = Slots(
            slots, self._leases, shares, memory=memory, a_claim=CLAIM_BYTES + max_body
        )
        self._starts = DelayQueue()
        self._claimers = [
            Claimer(queue, self._slots, check, self._launch, self._lease) for queue in queues
        ]
        self._stopping = False
        self._hurry = asyncio.Event()
        self._looking: list[asyncio.Task[None]] = []
        self._others: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look for due messages."""
        self._looking = [asyncio.create_task(claimer.run()) for claimer in self._claimers]
        for looking in self._looking:
            looking.add_done_callback(self._ended)
        self._others = [
            asyncio.create_task(self._notifier.listen(self._wake)),
            asyncio.create_task(housekeeping.renew(self._leases, self._lease)),
            asyncio.create_task(housekeeping.give_up(self._leases, self._lease / 20)),
            asyncio.create_task(housekeeping.trim(self._queues, self._growth)),
            *(asyncio.create_task(housekeeping.purge(queue)) for queue in self._queues),
            *(asyncio.create_task(housekeeping.sweep(queue)) for queue in self._queues),
        ]

    def _ended(self, _: asyncio.Task[None]) -> None:
        # Data that one may not touch none may: their partitions are of one data set.
        self.stop()

    def _wake(self, partition: int) -> None:
        self._claimers[partition].wake()

    @property
    def running(self) -> bool:
        """Whether it looks for due messages, and the store lets it claim them."""
        looking = bool(self._looking) and not any(task.done() for task in self._looking)
        heard = all(claimer.connection.since is not None for claimer in self._claimers)
        return looking and heard and not self._stopping

    @property
    def busy(self) -> bool:
        """Whether it holds any message."""
        return len(self._leases) > 0

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        for claimer in self._claimers:
            claimer.stop()

    def hurry(self) -> None:
        """Do not wait for open requests any longer."""
        self._hurry.set()

    async def drain(self, grace: timedelta) -> None:
        """Stop; let open requests end within `grace`, settle; what is cut off is retried."""
        self.stop()
        for looking in self._looking:
            with suppress(DataRefused):
                await looking
        await self._wait_for_open(grace.total_seconds())
        for lease in self._leases.sending:
            lease.task.cancel()
        await asyncio.gather(*self._leases.tasks, return_exceptions=True)
        self._starts.close()
        await asyncio.gather(*(_leave(queue) for queue in self._queues))
        await housekeeping.end(self._others)

    async def _wait_for_open(self, grace: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        open_requests = asyncio.gather(*self._leases.tasks, return_exceptions=True)
        either = (open_requests, hurry)
        await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()

    def _launch(self, queue: Queue, claim: Claim) -> None:
        now = queue.now()
        for claimed in claim.messages:
            lease = Lease(queue, claimed, claim.deadline)
            deliver = self._deliver if claimed.due_at <= now else self._deliver_when_due
            self._leases.hold(lease, asyncio.create_task(deliver(lease)))

    async def _deliver_when_due(self, lease: Lease) -> None:
        try:
            await self._starts.wait(lease.queue.instant(lease.claimed.due_at))
        except asyncio.CancelledError:  # the lease was lost, or the process stops
            self._land(lease)
            await self._give_back(lease)
        else:
            await self._deliver(lease)

    async def _deliver(self, lease: Lease) -> None:
        try:
            sent = await self._send(lease)
        except NothingSent as reason:
            if isinstance(reason, LookupNeverBegan):
                log.info("lookup_postponed", message_id=lease.claimed.id)
            else:
                self._slots.close_for_a_while()
            sent = None
        finally:
            self._land(lease)
        if sent:
            await self._settle(lease, sent)
        else:
            await self._give_back(lease)

    async def _send(self, lease: Lease) -> Sent | None:
        """The attempt; None if there was none, or the lease was lost."""
        claimed = lease.claimed
        if not self._leases.usable(lease):
            log.warning("lease_lost", message_id=claimed.id)
            return None
        start = Start(lease.queue.now(), time.monotonic())
        try:
            return await self._sender.send(claimed, start)
        except asyncio.CancelledError:
            if not self._stopping:
                return None
            return self._sender.cut_off(claimed, start)

    async def _give_back(self, lease: Lease) -> None:
        # Were it left to the end of its lease, a crash would be counted, although no process died.
        # If the lease was lost, the message is another process's, and this changes nothing.
        while True:
            try:
                await lease.queue.release([lease.claimed])
            except Unavailable as error:
                if self._stopping:
                    return
                await asyncio.sleep(self._claimers[lease.queue.partition].connection.lost(error))
            else:
                return

    def _land(self, lease: Lease) -> None:
        self._leases.sent(lease)
        self._slots.freed()

    async def _settle(self, lease: Lease, sent: Sent) -> None:
        claimed, outcome = lease.claimed, _outcome(lease.claimed, sent)
        while True:
            try:
                settled = await lease.queue.settle(outcome)
            except Unavailable as error:
                if self._stopping:
                    log.error("settle_failed", message_id=claimed.id)
                    return
                await asyncio.sleep(self._claimers[lease.queue.partition].connection.lost(error))
            else:
                _tell(outcome, settled)
                return


async def _leave(queue: Queue) -> None:
    with suppress(Unavailable):
        await queue.release([])


def _outcome(claimed: Claimed, sent: Sent) -> Outcome:
    attempt = sent.attempt
    jitter = random.uniform(-1, 1)  # noqa: S311
    decision = decide(attempt.number, attempt.status, sent.retry_after, jitter)
    if isinstance(decision, Delivered):
        return Outcome(claimed, attempt, "delivered")
    if isinstance(decision, Failed):
        return Outcome(claimed, attempt, "failed")
    return Outcome(claimed, attempt, "retry", decision.delay)


def _tell(outcome: Outcome, settled: bool) -> None:
    """One event for each transition."""
    attempt = outcome.attempt
    facts = {
        "message_id": outcome.claimed.id,
        "attempt": attempt.number,
        "status": attempt.status,
        "duration_ms": attempt.duration_ms,
        "lateness_ms": attempt.lateness_ms,
    }
    if attempt.error:
        facts["error"] = attempt.error
    if not settled:
        log.warning("settle_refused", **facts)
    elif outcome.verdict == "delivered":
        log.info("message_delivered", **facts)
    elif outcome.verdict == "failed":
        log.error("message_failed", **facts)
    else:
        log.warning("attempt_failed", retry_in_s=round(outcome.delay.total_seconds(), 1), **facts)
