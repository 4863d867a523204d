"""The claims that this process holds: until when it may act on each, and which task does."""

import asyncio
import inspect
import math
import time
from typing import TYPE_CHECKING, Any, cast

import structlog

from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.timing import MARGIN_SHARE
from scheduler_api.store.claims import Claimed
from scheduler_api.store.connection.batching import all_results
from scheduler_api.store.queue import CLAIM_BATCH, Queue

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = structlog.get_logger()


class Lease:
    """One claim, and the task that sends and settles it."""

    __slots__ = ("claimed", "deadline", "passes", "queue", "task")

    task: asyncio.Task[None]  # set by Leases.hold

    def __init__(self, queue: Queue, claimed: Claimed, deadline: float) -> None:
        """`queue`: of the message's partition; `deadline`: the lease's end, monotonic seconds."""
        self.queue = queue
        self.claimed = claimed
        self.deadline = deadline
        self.passes = 0  # how often its permit was passed on since a claim granted it


class Leases:
    """The leases of this process: renews them before they end, aborts requests after it."""

    def __init__(self, seconds: float, shares: SlotShares) -> None:
        """`seconds`: a lease's length; `shares`: counts the open requests by destination."""
        self._seconds = seconds
        self._shares = shares
        self._held: dict[asyncio.Task[None], Lease] = {}
        self.sending: set[Lease] = set()  # with an open request: each holds a slot
        self.queued: set[Lease] = set()  # without a permit: each waits for a request to end
        self.bytes = 0  # of the messages in both sets

    def __len__(self) -> int:
        return len(self._held) + len(self.queued)

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that send or settle."""
        return list(self._held)

    def usable(self, lease: Lease) -> bool:
        """Whether a request may still start, or stay open, under this lease."""
        return time.monotonic() < lease.deadline - MARGIN_SHARE * self._seconds

    def hold(self, lease: Lease, task: asyncio.Task[None]) -> None:
        """Renew the lease until the task, which sends and settles the message, has ended."""
        lease.task = task
        self._held[task] = lease
        self.sending.add(lease)
        self.bytes += lease.claimed.size
        self._shares.begin(lease.claimed.destination, lease)
        task.add_done_callback(self._ended)

    def sent(self, lease: Lease) -> None:
        """The request has ended; its outcome is still settled, even after the lease's end."""
        self.sending.remove(lease)
        self.bytes -= lease.claimed.size
        self._shares.end(lease.claimed.destination, lease)

    def queue(self, lease: Lease) -> None:
        """Renew the lease until `unqueue`; no task sends the message."""
        self.queued.add(lease)
        self.bytes += lease.claimed.size

    def unqueue(self, lease: Lease) -> None:
        """It is sent, or was given back."""
        self.queued.remove(lease)
        self.bytes -= lease.claimed.size

    def _ended(self, task: asyncio.Task[None]) -> None:
        # It may still be in `sending`: a task that is cancelled before it starts calls nothing.
        lease = self._held.pop(task)
        if lease in self.sending:
            self.sent(lease)

    async def renew(self, left: float) -> None:
        """Renew leases that end within `left` seconds. Raises: StoreUnavailable."""
        soon = time.monotonic() + left
        old: dict[Queue, list[Lease]] = {}
        for lease in (*self._held.values(), *self.queued):
            if lease.deadline <= soon:
                old.setdefault(lease.queue, []).append(lease)
        # All partitions are tried, even if one does not answer.
        await all_results(self._renew_all(queue, leases) for queue, leases in old.items())

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
                self._abort(lease)

    def abort_expired(self) -> None:
        """Abort every request whose lease could not be renewed in time."""
        for lease in list(self.sending):
            if not self.usable(lease):
                self._abort(lease)

    def _abort(self, lease: Lease) -> None:
        if lease in self.sending and has_started(lease.task):
            lease.task.cancel()
            log.warning("lease_lost", message_id=lease.claimed.id)
        else:
            # It starts no request any more, and passes no permit on. A task that is cancelled
            # before it starts would run no line of its code: its claim would not be released, and
            # count as a crash. After the request, its settle reports that the claim was lost.
            lease.deadline = -math.inf


def has_started(task: asyncio.Task[None]) -> bool:
    """Whether the task has run any of its code."""
    coroutine = cast("Coroutine[Any, Any, None]", task.get_coro())
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
