"""Passes permits from requests that have ended to messages that wait for one.

A permit is the right to have one request open to a destination; the store counts the permits of all
processes. A queued message is leased without one, so that the next request need not wait until an
outcome is written and the next message claimed. Only a lease that is still usable passes its permit
on: the store may have given the permit of a lost lease to another process.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime

from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.outcomes import Outcomes
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.timing import MAX_QUEUED
from scheduler_api.store.queue import Queue

_Line = tuple[Queue, bytes]  # a partition's queue, and a destination


class Permits:
    """The queued messages of a process: a line for each destination of a partition."""

    def __init__(
        self,
        leases: Leases,
        shares: SlotShares,
        outcomes: Outcomes,
        start: Callable[[Lease, datetime], None],
    ) -> None:
        """`start`: sends a message that has got a permit; with the store's time."""
        self._leases = leases
        self._shares = shares
        self._outcomes = outcomes
        self._start = start
        self._lines: dict[_Line, deque[tuple[float, Lease]]] = {}  # with the time of queueing
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    def queue(self, queued: Iterable[Lease]) -> None:
        """Let messages wait for the permits of open requests.

        Those whose destination has no open request here any more are given back.
        """
        now = time.monotonic()
        for lease in queued:
            self._leases.queue(lease)
            self._lines.setdefault(_line(lease), deque()).append((now, lease))
        open_lines = {_line(lease) for lease in self._leases.sending}
        for line in [it for it in self._lines if it not in open_lines]:
            self._give_back(line)
        self._set_timer()

    def pass_on(self, ended: Lease, *, answered: bool) -> bool:
        """Start the first message that waits behind `ended`, with the permit of `ended`.

        False: `ended` keeps its permit, because none waits, or because the destination did not
        answer or is slow. In these two cases the waiting messages are given back.
        """
        line = _line(ended)
        if line not in self._lines:
            return False
        first = self._lines[line][0][1]
        quick = answered and self._shares.is_quick(ended.claimed.destination)
        if not (quick and self._leases.usable(ended) and self._leases.usable(first)):
            self._give_back(line)
            return False
        self._pop(line)
        self._leases.unqueue(first)
        ended.claimed.permit, first.claimed.permit = False, True
        self._start(first, first.queue.now())
        return True

    def stop(self) -> None:
        """Give back all waiting messages."""
        for line in list(self._lines):
            self._give_back(line)

    async def released(self) -> None:
        """Wait until all calls that give messages back have ended."""
        await asyncio.gather(*self._releasing)

    def _pop(self, line: _Line) -> Lease:
        waiting = self._lines[line]
        _, lease = waiting.popleft()
        if not waiting:
            del self._lines[line]
        return lease

    def _give_back(self, line: _Line) -> None:
        leases = [lease for _, lease in self._lines.pop(line)]
        task = asyncio.create_task(self._release(line[0], leases))
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)

    async def _release(self, queue: Queue, leases: list[Lease]) -> None:
        try:
            await self._outcomes.release(queue, [lease.claimed for lease in leases])
        finally:
            for lease in leases:  # until now they were renewed
                self._leases.unqueue(lease)

    def _set_timer(self) -> None:
        if self._timer is None and self._lines:
            oldest = min(waiting[0][0] for waiting in self._lines.values())
            delay = max(0.0, oldest + MAX_QUEUED - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(delay, self._give_back_old)

    def _give_back_old(self) -> None:
        self._timer = None
        then = time.monotonic() - MAX_QUEUED
        for line in [it for it, waiting in self._lines.items() if waiting[0][0] <= then]:
            self._give_back(line)
        self._set_timer()


def _line(lease: Lease) -> _Line:
    return lease.queue, lease.claimed.destination
