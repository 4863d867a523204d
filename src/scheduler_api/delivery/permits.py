"""Passes permits from requests that have ended to messages that wait for one.

A permit is the right to have one request open to a destination; the store counts the permits of all
processes. A queued message is leased without one, so that the next request need not wait until an
outcome is written and the next message claimed. Only a lease that is still usable passes its permit
on: the store may have given the permit of a lost lease to another process.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from scheduler_api.delivery.leases import Lease, Leases
from scheduler_api.delivery.outcomes import Outcomes
from scheduler_api.delivery.slot_shares import SlotShares
from scheduler_api.delivery.timing import MAX_AWAITED, MAX_QUEUED, RECOUNT_INTERVAL
from scheduler_api.store.queue import Queue

MAX_PASSES: Final = 32  # then the permit goes back to the store, where other processes get it too


class _Line:
    """The messages that wait for the permits of one destination in one partition."""

    __slots__ = ("ended", "recounted_at", "used_at", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[float, Lease]] = deque()  # with the time of queueing
        # Requests that ended while none waited, each with what it waits for: they keep their
        # permits until the claim under way has brought messages, or none.
        self.ended: deque[tuple[Lease, asyncio.Future[None]]] = deque()
        # When a claim last brought messages, or the store had parked ones.
        self.used_at = time.monotonic()
        self.recounted_at = self.used_at


class Permits:
    """The queued messages of a process."""

    def __init__(
        self,
        leases: Leases,
        shares: SlotShares,
        outcomes: Outcomes,
        start: Callable[[Lease, datetime], None],
        released: Callable[[], None],
    ) -> None:
        """`start`: sends a message that has got a permit; with the store's time.

        `released`: called when messages were given back.
        """
        self._leases = leases
        self._shares = shares
        self._outcomes = outcomes
        self._start = start
        self._released = released
        self.lines: dict[tuple[Queue, bytes], _Line] = {}  # of those used in the last moment
        self._claiming: set[Queue] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._releasing: set[asyncio.Task[None]] = set()

    def waiting(self, queue: Queue) -> dict[bytes, int]:
        """Destination → number of its messages that wait in this partition.

        Also those of which none waits, but waited a moment ago, or are parked in the store.
        """
        for destination in queue.parked:
            self._line(queue, destination)
        queue.parked.clear()
        found = {key[1]: len(it.waiting) for key, it in self.lines.items() if key[0] is queue}
        if len(found) > 1:  # a claim fills the lines in this order: each is the first one in turn
            first = (queue, next(iter(found)))
            self.lines[first] = self.lines.pop(first)
        return found

    @contextmanager
    def awaiting(self, queue: Queue) -> Iterator[None]:
        """While a claim is under way: requests that end keep their permits for its messages.

        Not for longer than MAX_AWAITED: their outcomes wait as well.
        """
        self._claiming.add(queue)
        loop = asyncio.get_running_loop()
        timer = loop.call_later(MAX_AWAITED, self._end_awaiting, queue)
        try:
            yield
        finally:
            timer.cancel()
            self._end_awaiting(queue)

    def _end_awaiting(self, queue: Queue) -> None:
        self._claiming.discard(queue)
        for key, line in self.lines.items():
            if key[0] is queue:
                _let_go(line)

    def queue(self, queued: Iterable[Lease]) -> None:
        """Start messages with the permits of ended requests; let the others wait for open ones.

        Those whose destination has no request any more are given back.
        """
        now = time.monotonic()
        for lease in queued:
            line = self._line(lease.queue, lease.claimed.destination)
            self._leases.queue(lease)
            line.waiting.append((now, lease))
            while line.ended and line.waiting:
                ended, decided = line.ended.popleft()
                self._pass(ended, line)
                decided.set_result(None)
        self._give_back_without_request(*self.lines)
        self._set_timer()

    def _line(self, queue: Queue, destination: bytes) -> _Line:
        """The line, as used now."""
        line = self.lines.get((queue, destination))
        if line is None:
            line = self.lines[queue, destination] = _Line()
            self._set_timer()
        line.used_at = time.monotonic()
        return line

    def pass_on(self, ended: Lease, *, reached: bool) -> Awaitable[None] | None:
        """Start the first message that waits behind `ended`, with the permit of `ended`.

        Returns what to wait for before `ended` is settled, if there may soon be such a message. If
        the destination was not reached, the waiting messages are given back; if it is slow, the
        permit is.
        """
        key = (ended.queue, ended.claimed.destination)
        line = self.lines.get(key)
        if line is None:
            return None
        if not reached:
            self._give_back(key)
        elif ended.passes == MAX_PASSES or not self._shares.is_quick(ended.claimed.destination):
            self._give_back_without_request(key)
        elif line.waiting:
            self._pass(ended, line)
        elif ended.queue in self._claiming:
            decided = asyncio.get_running_loop().create_future()
            line.ended.append((ended, decided))
            return decided
        return None

    def _pass(self, ended: Lease, line: _Line) -> None:
        """Pass the permit on, unless one of both leases is lost."""
        first = line.waiting[0][1]
        if not (self._leases.usable(ended) and self._leases.usable(first)):
            self._give_back((first.queue, first.claimed.destination))
            return
        line.waiting.popleft()
        self._leases.unqueue(first)
        ended.claimed.permit, first.claimed.permit = False, True
        first.passes = ended.passes + 1
        self._start(first, first.queue.now())

    def stop(self) -> None:
        """Give back all waiting messages."""
        for key in list(self.lines):
            self._give_back(key)
            _let_go(self.lines.pop(key))

    async def released(self) -> None:
        """Wait until all calls that give messages back have ended."""
        await asyncio.gather(*self._releasing, return_exceptions=True)

    def _give_back_without_request(self, *keys: tuple[Queue, bytes]) -> None:
        """Of these lines, give back those whose destination has no open request."""
        for key in keys:
            if not self._shares.is_open(key[1]):
                self._give_back(key)

    def _give_back(self, key: tuple[Queue, bytes], until: float = math.inf) -> None:
        """Give back the messages of a line, or those that have waited since `until` or earlier."""
        waiting, leases = self.lines[key].waiting, []
        while waiting and waiting[0][0] <= until:
            leases.append(waiting.popleft()[1])
        if leases:
            task = asyncio.create_task(self._release(key[0], leases))
            self._releasing.add(task)
            task.add_done_callback(self._releasing.discard)

    async def _release(self, queue: Queue, leases: list[Lease]) -> None:
        try:
            await self._outcomes.release(queue, [lease.claimed for lease in leases])
        finally:
            for lease in leases:  # until now they were renewed
                self._leases.unqueue(lease)
            self._released()

    def _set_timer(self) -> None:
        if self._timer is None and self.lines:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(MAX_QUEUED / 2, self._give_back_old)

    def _give_back_old(self) -> None:
        """Give back what waits for long, and forget the lines that are not used any more."""
        self._timer = None
        now = time.monotonic()
        then = now - MAX_QUEUED / 2
        for key, line in list(self.lines.items()):
            # The store cuts the permits of a process to its claims. Without queued messages it
            # notices a permit that was lost, for example with a record that cannot be read.
            recount = line.recounted_at <= now - RECOUNT_INTERVAL
            self._give_back(key, math.inf if recount else then)
            if recount:
                line.recounted_at = now
            if line.used_at <= then and not line.ended:
                del self.lines[key]
        self._set_timer()


def _let_go(line: _Line) -> None:
    """Let the ended requests of a line give their permits back."""
    while line.ended:
        line.ended.popleft()[1].set_result(None)
