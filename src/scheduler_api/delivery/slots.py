"""How many requests may be open at once, and which partition's lookout waits for one."""

import asyncio
from typing import Final

import structlog

from scheduler_api.delivery.leases import Leases
from scheduler_api.delivery.wakeup import Wakeup
from scheduler_api.store.queue import CLAIMED_AT_ONCE

log = structlog.get_logger()

AFTER_SHORTAGE: Final = 1.0  # seconds that no slot is free after this machine ran out of sockets
GATHER_SLOTS: Final = 0.002  # seconds that a freed slot waits for others before the next claim


class Slots:
    """Shared by all partitions: reserved before a claim, so that they cannot claim too much."""

    def __init__(self, count: int, leases: Leases) -> None:
        """`leases`: whose open requests hold a slot each."""
        self._count = count
        self._leases = leases
        self._reserved = 0
        self._closed = False
        self._enough = max(1, min(CLAIMED_AT_ONCE, count) // 2)  # slots worth a claim at once
        self._hungry: dict[Wakeup, None] = {}  # in turn

    @property
    def free(self) -> int:
        """Neither reserved nor held."""
        if self._closed:
            return 0
        return self._count - len(self._leases.sending) - self._reserved

    @property
    def scarce(self) -> bool:
        """Whether the next claim had better wait until more are free."""
        return self.free < self._enough

    def reserve(self) -> int:
        """As many as one claim can use and are free: set apart until they are given back."""
        reserved = min(self.free, CLAIMED_AT_ONCE)
        self._reserved += reserved
        return reserved

    def give_back(self, reserved: int) -> None:
        """The claim is done: what it brought holds its slots by itself."""
        self._reserved -= reserved

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

    def feed(self, wakeup: Wakeup) -> None:
        """It looks now: not hungry, unless it says so again."""
        self._hungry.pop(wakeup, None)

    def freed(self) -> None:
        """Slots may be free: wake who is first in turn; several are filled by one claim."""
        if not self._hungry or self.free <= 0:
            return
        wakeup = next(iter(self._hungry))
        if self.scarce:
            wakeup.within(GATHER_SLOTS)
        else:
            wakeup.now()
