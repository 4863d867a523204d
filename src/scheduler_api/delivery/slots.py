"""How many requests may be open at once, and which partition's claimer waits for one."""

import asyncio
import sys
from typing import Final

import structlog

from scheduler_api.delivery.leases import Leases
from scheduler_api.delivery.slot_shares import QUICK, Shares
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.store.queue import CLAIM_BATCH, Share

log = structlog.get_logger()

AFTER_SHORTAGE: Final = 1.0  # seconds that no slot is free after this machine ran out of sockets
GATHER_SLOTS: Final = 0.002  # seconds that a freed slot waits for others before the next claim


class Slots:
    """Shared by all partitions: reserved before a claim, so that they cannot claim too much."""

    def __init__(
        self,
        count: int,
        leases: Leases,
        shares: Shares,
        *,
        memory: int = sys.maxsize,
        a_claim: int = 0,
    ) -> None:
        """`leases`: whose open requests hold a slot each; `shares`: to which destinations.

        `memory`: bytes of the messages that may be open, twice those of a claim at least;
        `a_claim`: bytes that one may bring.
        """
        self._count = count
        self._leases = leases
        self._shares = shares
        self._reserved = 0
        # Else a single small message that hangs would hold up all others.
        self._memory = max(memory, 2 * a_claim)
        self._a_claim = a_claim
        self._claims = 0  # under way
        self._closed = False
        self._enough = max(1, min(CLAIM_BATCH, count) // 2)  # slots worth a claim at once
        self._hungry: dict[Wakeup, None] = {}  # in turn

    @property
    def free(self) -> int:
        """Neither reserved nor held, nor kept for other destinations than hold them now.

        None, where there is no memory for what one more claim may bring.
        """
        # As `_lacks_memory` has it; this is asked several times for each claim.
        held = self._leases.bytes + self._claims * self._a_claim
        if self._closed or (held > 0 and held + self._a_claim > self._memory):
            return 0
        left = self._count - len(self._leases.sending) - self._reserved - self._shares.kept
        return left if left > 0 else 0

    @property
    def _lacks_memory(self) -> bool:
        # Something is always claimed, however large, when nothing else is open.
        held = self._leases.bytes + self._claims * self._a_claim
        return held > 0 and held + self._a_claim > self._memory

    @property
    def _left(self) -> int:
        # Those that are kept included.
        return self._count - len(self._leases.sending) - self._reserved

    @property
    def keep_some(self) -> bool:
        """Whether it is only for others that none is free."""
        return not self._closed and not self._lacks_memory and self._left > self.free == 0

    @property
    def scarce(self) -> bool:
        """Whether the next claim had better wait until more are free."""
        return self.free < self._enough

    def reserve(self) -> int:
        """As many as one claim can use and are free: set apart until they are given back."""
        self._shares.review()
        reserved = min(self._shares.most(self.free), CLAIM_BATCH)
        self._reserved += reserved
        self._claims += reserved > 0
        return reserved

    def share(self, reserved: int) -> Share:
        """What a claim for so many reserved ones has to know."""
        free = self._left + reserved
        return Share(self._count, free, self._shares.named(free))

    def give_back(self, reserved: int) -> None:
        """The claim is done: what it brought holds its slots by itself."""
        self._reserved -= reserved
        self._claims -= 1

    def close_for_a_while(self) -> None:
        """This machine has no more sockets: claim nothing until some may be free."""
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_later(AFTER_SHORTAGE, self._open)
            log.warning("sockets_exhausted", pause_s=AFTER_SHORTAGE)

    def _open(self) -> None:
        self._closed = False
        self.freed()

    def starve(self, wakeup: Wakeup) -> None:
        """More is due than there are slots: to be woken in turn."""
        self._hungry[wakeup] = None
        if self.keep_some:  # until those that hold the others turn out to be slow
            wakeup.within(QUICK)

    def feed(self, wakeup: Wakeup) -> None:
        """It looks now: not hungry, unless it says so again."""
        self._hungry.pop(wakeup, None)

    def freed(self) -> None:
        """Slots may be free: wake who is first in turn; several are filled by one claim."""
        if not self._hungry or self._closed:
            return
        # As `free` has it; this is asked after each request.
        free = self._count - len(self._leases.sending) - self._reserved - self._shares.kept
        held = self._leases.bytes + self._claims * self._a_claim
        if free <= 0 or (held > 0 and held + self._a_claim > self._memory):
            return
        wakeup = next(iter(self._hungry))
        if free < self._enough:
            wakeup.within(GATHER_SLOTS)
        else:
            wakeup.now()
