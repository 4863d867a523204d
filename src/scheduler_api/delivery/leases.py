"""The claims this process holds: until when it may act on each, and who is acting."""

import asyncio
import time
from typing import Final

import structlog

from scheduler_api.delivery.slot_shares import Shares
from scheduler_api.store.queue import CLAIM_BATCH, Claimed, Queue

log = structlog.get_logger()

MARGIN: Final = 0.1  # of a lease: a request is given up this much before the lease ends


class Lease:
    """One claim, and the task that sends and settles it."""

    __slots__ = ("claimed", "deadline", "queue", "task")

    task: asyncio.Task[None]  # set by Leases.hold

    def __init__(self, queue: Queue, claimed: Claimed, deadline: float) -> None:
        """`queue`: its own; `deadline`: the lease's end by the monotonic clock, seconds."""
        self.queue = queue
        self.claimed = claimed
        self.deadline = deadline


class Leases:
    """All of them; what is about to end is renewed, what has ended is given up."""

    def __init__(self, seconds: float, shares: Shares) -> None:
        """`seconds`: a lease's length; `shares`: hears whose request holds a slot."""
        self._seconds = seconds
        self._shares = shares
        self._held: dict[asyncio.Task[None], Lease] = {}
        self.sending: set[Lease] = set()  # whose request is open: each holds a slot
        self.bytes = 0  # of their messages

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Who is sending or settling."""
        return list(self._held)

    def usable(self, lease: Lease) -> bool:
        """Whether a request may still be started, or go on, under this lease."""
        return time.monotonic() < lease.deadline - MARGIN * self._seconds

    def hold(self, lease: Lease, task: asyncio.Task[None]) -> None:
        """Keep the lease alive until the task, which is to send the message, has ended."""
        lease.task = task
        self._held[task] = lease
        self.sending.add(lease)
        self.bytes += lease.claimed.size
        self._shares.begin(lease.claimed.destination, lease)
        task.add_done_callback(self._ended)

    def sent(self, lease: Lease) -> None:
        """The request has ended; its outcome is to be settled, even after the lease's end."""
        self.sending.remove(lease)
        self.bytes -= lease.claimed.size
        self._shares.end(lease.claimed.destination, lease)

    def _ended(self, task: asyncio.Task[None]) -> None:
        # Also from `sending`: a task that is cancelled before it begins has never said so.
        lease = self._held.pop(task)
        if lease in self.sending:
            self.sent(lease)

    async def renew(self, left: float) -> None:
        """Extend those that have so many seconds left, or less. Raises: StoreUnavailable."""
        soon = time.monotonic() + left
        old: dict[Queue, list[Lease]] = {}
        for lease in self._held.values():
            if lease.deadline <= soon:
                old.setdefault(lease.queue, []).append(lease)
        # All of them are tried, whichever partition is away.
        renewing = (self._renew_all(queue, leases) for queue, leases in old.items())
        for error in await asyncio.gather(*renewing, return_exceptions=True):
            if error:
                raise error

    async def _renew_all(self, queue: Queue, leases: list[Lease]) -> None:
        for i in range(0, len(leases), CLAIM_BATCH):
            await self._renew(queue, leases[i : i + CLAIM_BATCH])

    async def _renew(self, queue: Queue, leases: list[Lease]) -> None:
        deadline = time.monotonic() + self._seconds
        kept = await queue.renew([lease.claimed for lease in leases])
        for lease, is_kept in zip(leases, kept, strict=True):
            if is_kept:
                lease.deadline = deadline
            else:
                self._give_up(lease)

    def give_up_ended(self) -> None:
        """Abort every request whose lease could not be renewed in time."""
        for lease in list(self.sending):
            if not self.usable(lease):
                self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        # A request that has ended is left alone: its settle says whether the claim still held.
        if lease in self.sending:
            lease.task.cancel()
            log.warning("lease_lost", message_id=lease.claimed.id)
