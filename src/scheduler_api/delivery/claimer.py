"""The claim loop of one partition: sleep until a message is due, claim it, launch it.

All processes run this loop, though one is enough. The process whose last claim found messages
claims first; a process that lost that race claims a little later (standby). No leader is elected:
when the first process is dead or has no free slot, another one finds the messages and claims first.
"""

from collections.abc import Awaitable, Callable

import structlog

from scheduler_api.delivery.permits import Permits
from scheduler_api.delivery.slots import Slots
from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.timing import (
    AHEAD,
    ERROR_PAUSE,
    GATHER_SLOTS,
    JUMP_SHARE,
    MAX_STANDBY,
    MIN_STANDBY,
    POLL_SHARE,
    SAFETY_POLL,
)
from scheduler_api.delivery.upkeep.reaper import reap
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.domain.errors import DataRefused, Unavailable
from scheduler_api.store.claims import Claim
from scheduler_api.store.queue import Queue

log = structlog.get_logger()


class Claimer:
    """Claims the messages of one partition."""

    def __init__(
        self,
        queue: Queue,
        slots: Slots,
        health: StoreHealth,
        check: Callable[[int], Awaitable[None]],
        launch: Callable[[Queue, Claim], None],
        permits: Permits,
        lease: float,
    ) -> None:
        """`launch`: sends the claimed messages; `lease`: seconds; `check`: see Dispatcher."""
        self._queue = queue
        self._slots = slots
        self._health = health
        self._check = check
        self._launch = launch
        self._permits = permits
        self._lease = lease
        self._stopping = False
        self._standby_s = 0.0  # how long after the first process this one claims
        self._wakeup = Wakeup(min(SAFETY_POLL, lease * POLL_SHARE))

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self._wakeup.now()

    def wake(self) -> None:
        """The earliest due message has changed: claim, after the standby if there is one."""
        if self._standby_s:
            self._wakeup.within(self._standby_s)
        else:
            self._wakeup.now()

    async def run(self) -> None:
        """Claim until stopped. Raises: DataRefused."""
        self._wakeup.now()
        try:
            while not self._stopping:
                await self._wakeup.wait()
                await self._claim_safely()
        finally:
            self._wakeup.close()

    async def _claim_safely(self) -> None:
        try:
            await self._claim_until_idle()
        except DataRefused as error:
            log.error("data_refused", reason=str(error))
            raise
        except Unavailable as error:
            self._wakeup.within(self._health.note_failure(error))
        except Exception:  # a bug must not stop the messages that are due tomorrow
            self._wakeup.within(ERROR_PAUSE)
            log.exception("dispatcher_error")

    async def _claim_until_idle(self) -> None:
        """Claim until no slot is free or nothing is due; then set the time of the next claim."""
        if not self._health.answers:
            await self._check(self._queue.partition)
        if not self._health.answers or self._slots.free <= 0:  # else the claim asks the store
            await self._queue.note_restart()
            self._health.note_answer()
        self._slots.stop_waiting(self._wakeup)
        try:
            await self._claim_what_is_due()
        finally:
            self._slots.wake_next()  # others may have waited for slots that were reserved here

    async def _claim_what_is_due(self) -> None:
        while not self._stopping and (reserved := self._slots.reserve()):
            claim = await self._claim(reserved)
            self._standby_s = _next_standby(self._standby_s, claim)
            if claim.lease_in == 0 and await self._reap():
                continue
            if claim.due_in != 0:
                self._sleep_until_next(claim)
                return
            if self._slots.free and self._slots.scarce:
                self._wakeup.within(GATHER_SLOTS)
                return
        self._slots.wait_for_slot(self._wakeup)

    async def _claim(self, reserved: int) -> Claim:
        try:
            with self._permits.awaiting(self._queue):
                share = self._slots.share(reserved, self._permits.waiting(self._queue))
                claim = await self._queue.claim(reserved, AHEAD, share)
                await self._take(claim)
        finally:
            self._slots.give_back(reserved)
        if claim.reset:
            log.error("store_reset", partition=self._queue.partition)
            await self._check(self._queue.partition)
        return claim

    async def _take(self, claim: Claim) -> None:
        self._health.note_answer()
        if abs(claim.jump) > self._lease * JUMP_SHARE:
            self._note_jump(claim.jump)
        if self._stopping and claim.messages:
            await self._queue.release(claim.messages)
        else:
            self._launch(self._queue, claim)
        if claim.dropped:
            log.error("records_missing", dropped=claim.dropped)

    def _note_jump(self, seconds: float) -> None:
        """After a jump ahead every lease seems expired; their holders get time to renew them."""
        self._health.note_disturbance()
        log.warning("store_clock_jumped", partition=self._queue.partition, seconds=seconds)

    async def _reap(self) -> bool:
        """Take back expired claims; False: not yet allowed; the next claim is scheduled."""
        wait = await reap(self._queue, self._health, self._lease)
        if wait is not None:
            self._wakeup.within(wait)
        return wait is None

    def _sleep_until_next(self, claim: Claim) -> None:
        if claim.due_at is not None:
            self._wakeup.at(claim.due_at + self._standby_s)
        if claim.lease_in:
            self._wakeup.within(claim.lease_in)


def _next_standby(standby_s: float, claim: Claim) -> float:
    """Seconds by which this process claims later than the first one."""
    if claim.messages:
        return 0.0
    if claim.lost_race:
        return min(MAX_STANDBY, max(MIN_STANDBY, 2 * standby_s))
    return standby_s
