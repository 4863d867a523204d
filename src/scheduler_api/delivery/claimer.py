"""Looks after one partition: sleeps until something is due, claims it, hands it on.

Of several processes one is enough. Whoever found something in its last look comes first; a process
that was beaten to it stands by, and looks a little later. So the first one need not be chosen, nor
known: when it is dead, or has all its slots full, another finds what is due and is first itself.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from scheduler_api.delivery.delay_queue import AHEAD
from scheduler_api.delivery.slots import GATHER_SLOTS, Slots
from scheduler_api.delivery.upkeep import housekeeping
from scheduler_api.delivery.upkeep.housekeeping import JUMP, LOOK_EVERY, SILENCE, StoreHealth
from scheduler_api.delivery.wakeup import SAFETY_POLL, Wakeup
from scheduler_api.domain.errors import DataRefused, Unavailable
from scheduler_api.store.queue import Claim, Queue

log = structlog.get_logger()

MIN_STANDBY: Final = 0.02  # seconds; doubled each time that a process was beaten again
MAX_STANDBY: Final = 0.1  # seconds: how late a message is, once, whose first process died
AFTER_BREAKING: Final = 1.0  # seconds until the next look after an error of our own


class Claimer:
    """The loop of one partition."""

    def __init__(
        self,
        queue: Queue,
        slots: Slots,
        check: Callable[[int], Awaitable[None]],
        launch: Callable[[Queue, Claim], None],
        lease: float,
    ) -> None:
        """`launch`: sends what was claimed; `lease`: seconds. `check`: see Dispatcher."""
        self._queue = queue
        self._slots = slots
        self._check = check
        self._launch = launch
        self._lease = lease
        self._stopping = False
        self._standby = 0.0  # seconds
        self.connection = StoreHealth(queue.partition, lease * SILENCE)
        self.wakeup = Wakeup(min(SAFETY_POLL, lease * LOOK_EVERY))

    def stop(self) -> None:
        """Claim nothing more."""
        self._stopping = True
        self.wakeup.now()

    def wake(self) -> None:
        """There is a new head: look, unless another process comes first."""
        if self._standby:
            self.wakeup.within(self._standby)
        else:
            self.wakeup.now()

    async def run(self) -> None:
        """Until told to stop. Raises: DataRefused."""
        self.wakeup.now()
        try:
            while not self._stopping:
                await self.wakeup.wait()
                await self._look_safely()
        finally:
            self.wakeup.close()

    async def _look_safely(self) -> None:
        try:
            await self._look()
        except DataRefused as error:
            log.error("data_refused", reason=str(error))
            raise
        except Unavailable as error:
            self.wakeup.within(self.connection.lost(error))
        except Exception:  # whatever it is, what is due tomorrow must be sent
            self.wakeup.within(AFTER_BREAKING)
            log.exception("dispatcher_error")

    async def _look(self) -> None:
        """Claim until there is no slot or nothing is due; then know when to look again."""
        if self.connection.since is None:
            await self._check(self._queue.partition)
        if self.connection.since is None or self._slots.free <= 0:  # else the claim hears from it
            await self._queue.note_restart()
            self.connection.found()
        self._slots.feed(self.wakeup)
        try:
            await self._claim_what_is_due()
        finally:
            self._slots.freed()  # others may have waited for what was reserved here

    async def _claim_what_is_due(self) -> None:
        while not self._stopping and (reserved := self._slots.reserve()):
            claim = await self._claim(reserved)
            self._standby = _next_standby(self._standby, claim)
            if claim.lease_in == 0 and await self._reap():
                continue
            if claim.due_in != 0:
                self._sleep_until_next(claim)
                return
            if self._slots.free and self._slots.scarce:
                self.wakeup.within(GATHER_SLOTS)
                return
        self._slots.starve(self.wakeup)

    async def _claim(self, reserved: int) -> Claim:
        try:
            claim = await self._queue.claim(reserved, AHEAD, self._slots.share(reserved))
            self.connection.found()
            if abs(claim.jump) > self._lease * JUMP:
                self._note_jump(claim.jump)
            if self._stopping and claim.messages:
                await self._queue.release(claim.messages)
            else:
                self._launch(self._queue, claim)
            if claim.dropped:
                log.error("records_missing", dropped=claim.dropped)
        finally:
            self._slots.give_back(reserved)
        if claim.reset:
            log.error("store_reset", partition=self._queue.partition)
            await self._check(self._queue.partition)
        return claim

    def _note_jump(self, seconds: float) -> None:
        """After a jump ahead every lease looks ended; their holders get time to renew them."""
        self.connection.disturbed()
        log.warning("store_clock_jumped", partition=self._queue.partition, seconds=seconds)

    async def _reap(self) -> bool:
        """Take back expired leases; False: not yet allowed, and it is known when."""
        wait = await housekeeping.reap(self._queue, self.connection, self._lease)
        if wait is not None:
            self.wakeup.within(wait)
        return wait is None

    def _sleep_until_next(self, claim: Claim) -> None:
        if claim.due_at is not None:
            self.wakeup.at(claim.due_at + self._standby)
        if claim.lease_in:
            self.wakeup.within(claim.lease_in)


def _next_standby(standby: float, claim: Claim) -> float:
    """Seconds by which the next look is put off."""
    if claim.messages:
        return 0.0
    return min(MAX_STANDBY, max(MIN_STANDBY, 2 * standby)) if claim.beaten else standby
