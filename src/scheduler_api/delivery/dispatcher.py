"""Claim → send → settle, bounded by slots; drains on stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final

import structlog

from scheduler_api.delivery import housekeeping
from scheduler_api.delivery.housekeeping import Connection
from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.sender import Sender, Sent
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.domain.errors import SchemaTooNew, Unavailable
from scheduler_api.domain.retry import Delivered, Failed, decide
from scheduler_api.store.heads import Heads
from scheduler_api.store.queue import CLAIMED_AT_ONCE, Claim, Claimed, Outcome, Queue

log = structlog.get_logger()

GATHER_SLOTS: Final = 0.002  # seconds that a freed slot waits for others before the next claim
AFTER_BREAKING: Final = 1.0  # seconds until the next look after an error of our own


class Dispatcher:
    """Sends what is due, `slots` requests at a time."""

    def __init__(
        self,
        queue: Queue,
        heads: Heads,
        sender: Sender,
        check: Callable[[], Awaitable[None]],
        *,
        slots: int,
        lease: timedelta,
    ) -> None:
        """`check`: asked whenever the store was found (again). Raises: SchemaTooNew."""
        self._queue = queue
        self._heads = heads
        self._sender = sender
        self._check = check
        self._slots = slots
        self._enough = max(1, min(CLAIMED_AT_ONCE, slots) // 2)  # slots worth a claim at once
        self._lease = lease.total_seconds()
        self._leases = Leases(queue, self._lease)
        self._connection = Connection()
        self._wakeup = Wakeup()
        self._hungry = False  # more was due than there were slots
        self._stopping = False
        self._hurry = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look for due messages."""
        self._loops = [
            asyncio.create_task(self._run()),
            asyncio.create_task(self._heads.listen(self._wakeup.now)),
            asyncio.create_task(housekeeping.renew(self._leases, self._lease / 3)),
            asyncio.create_task(housekeeping.give_up(self._leases, self._lease / 20)),
            asyncio.create_task(housekeeping.purge(self._queue)),
        ]

    @property
    def running(self) -> bool:
        """Whether it looks for due messages."""
        return bool(self._loops) and not self._loops[0].done() and not self._stopping

    @property
    def busy(self) -> bool:
        """Whether it holds any message."""
        return len(self._leases) > 0

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._wakeup.now()

    def hurry(self) -> None:
        """Do not wait for open requests any longer."""
        self._hurry.set()

    async def drain(self, grace: timedelta) -> None:
        """Stop; let open requests end within `grace`, settle; what is cut off is retried."""
        self.stop()
        looking, *others = self._loops
        with suppress(SchemaTooNew):
            await looking
        await self._wait_for_open(grace.total_seconds())
        for lease in self._leases.sending:
            lease.task.cancel()
        await asyncio.gather(*self._leases.tasks, return_exceptions=True)
        with suppress(Unavailable):
            await self._queue.release([])
        await housekeeping.end(others)

    async def _wait_for_open(self, grace: float) -> None:
        hurry = asyncio.create_task(self._hurry.wait())
        open_requests = asyncio.gather(*self._leases.tasks, return_exceptions=True)
        either = (open_requests, hurry)
        await asyncio.wait(either, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()

    async def _run(self) -> None:
        self._wakeup.now()
        while not self._stopping:
            await self._wakeup.wait()
            try:
                await self._look()
            except SchemaTooNew as error:
                log.error("schema_too_new", reason=str(error))
                raise
            except Unavailable as error:
                self._wakeup.within(self._connection.lost(error))
            except Exception:  # whatever it is, what is due tomorrow must be sent
                log.exception("dispatcher_broke")
                self._wakeup.within(AFTER_BREAKING)

    async def _look(self) -> None:
        """Claim until there is no slot or nothing is due; then know when to look again."""
        if self._connection.since is None:
            await self._check()
            self._connection.found()
        self._hungry = False
        while (free := self._free()) and not self._stopping:
            claim = await self._queue.claim(free)
            await self._launch(claim)
            if claim.lease_in == 0 and await self._reap():
                continue
            if claim.due_in != 0:
                self._sleep_until_next(claim)
                return
            if 0 < self._free() < self._enough:
                self._wakeup.within(GATHER_SLOTS)
                return
        self._hungry = True

    def _free(self) -> int:
        return self._slots - len(self._leases.sending)

    async def _reap(self) -> bool:
        """Take back expired leases; False: not yet allowed, and it is known when."""
        wait = await housekeeping.reap(self._queue, self._connection, self._lease)
        if wait is not None:
            self._wakeup.within(wait)
        return wait is None

    def _sleep_until_next(self, claim: Claim) -> None:
        if claim.due_in is not None:
            self._wakeup.within(claim.due_in)
        if claim.lease_in:
            self._wakeup.within(claim.lease_in)

    async def _launch(self, claim: Claim) -> None:
        if claim.dropped:
            log.error("records_missing", dropped=claim.dropped)
        if self._stopping and claim.messages:
            await self._queue.release(claim.messages)
            return
        for claimed in claim.messages:
            lease = Lease(claimed, claim.deadline)
            self._leases.hold(lease, asyncio.create_task(self._deliver(lease)))

    async def _deliver(self, lease: Lease) -> None:
        try:
            sent = await self._send(lease)
        finally:
            self._land(lease)
        if sent:
            await self._settle(lease.claimed, sent)

    async def _send(self, lease: Lease) -> Sent | None:
        claimed = lease.claimed
        if not self._leases.usable(lease):
            log.warning("lease_lost", message_id=claimed.id)
            return None
        started_at = self._queue.now()
        try:
            return await self._sender.send(claimed, started_at)
        except asyncio.CancelledError:
            if not self._stopping:
                raise  # the lease was lost: another process has the message
            return self._sender.cut_off(claimed, started_at)

    def _land(self, lease: Lease) -> None:
        """A slot is free; several freed together are filled by one claim."""
        self._leases.sent(lease)
        if self._hungry:
            if self._free() >= self._enough:
                self._wakeup.now()
            else:
                self._wakeup.within(GATHER_SLOTS)

    async def _settle(self, claimed: Claimed, sent: Sent) -> None:
        outcome = _outcome(claimed, sent)
        while True:
            try:
                settled = await self._queue.settle(outcome)
            except Unavailable as error:
                if self._stopping:
                    log.error("settle_failed", message_id=claimed.id)
                    return
                await asyncio.sleep(self._connection.lost(error))
            else:
                _tell(outcome, settled)
                return


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
