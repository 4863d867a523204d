"""The claims this process holds: until when it may act on each, and who is acting."""

import asyncio
import time
from typing import Final

import structlog

from scheduler_api.store.queue import CLAIMED_AT_ONCE, Claimed, Queue

log = structlog.get_logger()

MARGIN: Final = 0.1  # of a lease: a request is given up this much before the lease ends


class Lease:
    """One claim, held until `deadline` by the monotonic clock."""

    __slots__ = ("claimed", "deadline", "task")

    def __init__(self, claimed: Claimed, deadline: float, task: asyncio.Task[None]) -> None:
        self.claimed = claimed
        self.deadline = deadline
        self.task = task


class Leases:
    """All of them; what is about to end is renewed, what has ended is given up."""

    def __init__(self, queue: Queue, seconds: float) -> None:
        """`seconds`: a lease's length."""
        self._queue = queue
        self._seconds = seconds
        self._held: dict[asyncio.Task[None], Lease] = {}
        self.sending: set[asyncio.Task[None]] = set()  # of the tasks: those that hold a slot

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """Who is sending or settling."""
        return list(self._held)

    def usable(self, deadline: float) -> bool:
        """Whether a request may still be started under a lease that ends then."""
        return time.monotonic() < deadline - MARGIN * self._seconds

    def hold(self, claimed: Claimed, deadline: float, task: asyncio.Task[None]) -> None:
        """Keep the lease alive until the task, which is to send the message, has ended."""
        self._held[task] = Lease(claimed, deadline, task)
        self.sending.add(task)
        task.add_done_callback(self._ended)

    def sent(self, task: asyncio.Task[None]) -> None:
        """The request has ended; its outcome is to be settled, even after the lease's end."""
        self.sending.discard(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._held[task]
        self.sending.discard(task)  # a task cancelled before it began has never said so

    async def renew(self) -> None:
        """Extend those that are a third through. Raises: StoreUnavailable."""
        soon = time.monotonic() + self._seconds * 2 / 3
        old = [lease for lease in self._held.values() if lease.deadline <= soon]
        for i in range(0, len(old), CLAIMED_AT_ONCE):
            await self._renew(old[i : i + CLAIMED_AT_ONCE])

    async def _renew(self, leases: list[Lease]) -> None:
        deadline = time.monotonic() + self._seconds
        kept = await self._queue.renew([lease.claimed for lease in leases])
        for lease, is_kept in zip(leases, kept, strict=True):
            if is_kept:
                lease.deadline = deadline
            else:
                self._give_up(lease)

    def give_up_ended(self) -> None:
        """Abort every request whose lease could not be renewed in time."""
        for lease in list(self._held.values()):
            if not self.usable(lease.deadline):
                self._give_up(lease)

    def _give_up(self, lease: Lease) -> None:
        # A request that has ended is left alone: its settle says whether the claim still held.
        if lease.task in self.sending:
            log.warning("lease_lost", message_id=lease.claimed.id)
            lease.task.cancel()
