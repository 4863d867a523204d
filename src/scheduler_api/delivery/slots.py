"""How many requests may be open at once, and which partition's claimer gets the next free slot."""

import asyncio
import sys
from collections.abc import Mapping

import structlog

from scheduler_api.delivery.leases import Leases
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.timing import GATHER_SLOTS, QUICK_REQUEST, SHORTAGE_PAUSE
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.store.claims import Share
from scheduler_api.store.queue import CLAIM_BATCH

log = structlog.get_logger()


class Slots:
    """The slots of all partitions; a claim reserves them first, so that none claims too much."""

    def __init__(
        self,
        count: int,
        leases: Leases,
        shares: SlotShares,
        *,
        memory: int = sys.maxsize,
        claim_bytes: int = 0,
    ) -> None:
        """`leases`: their open requests hold one slot each; `shares`: of these, by destination.

        `memory`: bytes of messages that may be open, at least twice `claim_bytes`;
        `claim_bytes`: the maximum of one claim.
        """
        self._count = count
        self._leases = leases
        self._shares = shares
        self._reserved = 0
        # With less, one small message that hangs would block all others.
        self._memory = max(memory, 2 * claim_bytes)
        self._claim_bytes = claim_bytes
        self._claims = 0  # under way
        self._paused = False
        self._enough = max(1, min(CLAIM_BATCH, count) // 2)  # slots that are worth a claim
        self._waiting: dict[Wakeup, None] = {}  # claimers, the first to wake first

    @property
    def free(self) -> int:
        """Slots that are not reserved, not held and not kept for other destinations.

        0 if there is no memory for one more claim.
        """
        # The same as `_lacks_memory`, inlined: this runs several times for each claim.
        held = self._leases.bytes + self._claims * self._claim_bytes
        if self._paused or (held > 0 and held + self._claim_bytes > self._memory):
            return 0
        left = self._count - len(self._leases.sending) - self._reserved - self._shares.kept
        return left if left > 0 else 0

    @property
    def _lacks_memory(self) -> bool:
        # While nothing else is open, a message of any size is claimed.
        held = self._leases.bytes + self._claims * self._claim_bytes
        return held > 0 and held + self._claim_bytes > self._memory

    @property
    def _left(self) -> int:
        # With those that are kept.
        return self._count - len(self._leases.sending) - self._reserved

    @property
    def only_kept_left(self) -> bool:
        """Whether the only free slots are those kept for other destinations."""
        return not self._paused and not self._lacks_memory and self._left > self.free == 0

    @property
    def scarce(self) -> bool:
        """Whether the next claim should wait until more slots are free."""
        return self.free < self._enough

    def reserve(self) -> int:
        """Reserve as many free slots as one claim can fill → how many; 0: none is free."""
        self._shares.mark_slow()
        reserved = min(self._shares.claim_limit(self.free), CLAIM_BATCH)
        self._reserved += reserved
        self._claims += reserved > 0
        return reserved

    def share(self, reserved: int, waiting: Mapping[bytes, int]) -> Share:
        """How the slots are shared, as a claim for `reserved` messages sends it to the store.

        `waiting`: destination → its messages of this partition that wait for a permit.
        """
        free = self._left + reserved
        quick = [it for pair in waiting.items() if self._shares.is_quick(pair[0]) for it in pair]
        return Share(self._count, free, self._shares.named(free), quick, len(self._leases.queued))

    def give_back(self, reserved: int) -> None:
        """The claim is done; the messages that it returned hold their own slots."""
        self._reserved -= reserved
        self._claims -= 1

    def pause(self) -> None:
        """This machine has no socket left: no slot is free for SHORTAGE_PAUSE."""
        if not self._paused:
            self._paused = True
            asyncio.get_running_loop().call_later(SHORTAGE_PAUSE, self._resume)
            log.warning("sockets_exhausted", pause_s=SHORTAGE_PAUSE)

    def _resume(self) -> None:
        self._paused = False
        self.wake_next()

    def wait_for_slot(self, wakeup: Wakeup) -> None:
        """Wake this claimer, in turn, when slots are free: more is due than it could claim."""
        self._waiting[wakeup] = None
        if self.only_kept_left:  # they become free once the destinations that hold the others hang
            wakeup.within(QUICK_REQUEST)

    def stop_waiting(self, wakeup: Wakeup) -> None:
        """Do not wake this claimer: it is about to claim."""
        self._waiting.pop(wakeup, None)

    def wake_next(self) -> None:
        """Wake the first waiting claimer if slots are free; a few wait for others first."""
        if not self._waiting or self._paused:
            return
        # The same as `free`, inlined: this runs after each request.
        free = self._count - len(self._leases.sending) - self._reserved - self._shares.kept
        held = self._leases.bytes + self._claims * self._claim_bytes
        if free <= 0 or (held > 0 and held + self._claim_bytes > self._memory):
            return
        wakeup = next(iter(self._waiting))
        if free < self._enough:
            wakeup.within(GATHER_SLOTS)
        else:
            wakeup.now()
