"""Which destinations hold this process's slots, and which of them answer quickly; asked by slots.

A destination that answers quickly may have any slot. The others share, as claim.lua has it: however
many of them hang, some slots stay free. What is known is of this process alone, and only an
estimate: to be wrong about a destination for a moment makes it wait, no more.
"""

import time
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Final

QUICK: Final = 0.5  # seconds: a request that is open for longer is a slow one
SLOW_SHARE: Final = 32  # a quick destination may have this part of the slots open for longer
HOT_SHARE: Final = 2  # from this part of the slots on, quick destinations leave some free …
KEPT_SHARE: Final = 16  # … this part
KNOWN: Final = 512  # quick and slow destinations each that are remembered without open requests
NAMED: Final = 32  # quick destinations without open requests that a claim hears of


class _Requests:
    """The open requests to one destination."""

    __slots__ = ("began", "quick")

    def __init__(self, *, quick: bool) -> None:
        self.began: dict[Hashable, float] = {}  # request → monotonic seconds, the oldest first
        self.quick = quick  # whether its last request ended soon, and few are open for long


class Shares:
    """The open requests of a process by destination."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: dict[bytes, _Requests] = {}
        # Without open requests, the last one that had some last: whether it is quick.
        self._quick: dict[bytes, None] = {}
        self._slow: dict[bytes, None] = {}
        self._held_by_quick = 0  # slots
        self._hot = max(1, slots // HOT_SHARE)
        # Slots to be left free: quick destinations hold most of the others, and may begin to hang.
        self.kept = 0

    def most(self, free: int) -> int:
        """How many of the free slots one claim may fill: all of them may be for quick ones."""
        cold = self._hot - self._held_by_quick
        return min(free, max(cold, free - self._slots // KEPT_SHARE)) if cold > 0 else free

    def begin(self, destination: bytes, request: Hashable) -> None:
        """A request holds a slot."""
        requests = self._open.get(destination)
        if requests is None:
            quick = destination in self._quick
            (self._quick if quick else self._slow).pop(destination, None)
            requests = self._open[destination] = _Requests(quick=quick)
        requests.began[request] = time.monotonic()
        if requests.quick:
            self._held_by_quick += 1
            if self._held_by_quick == self._hot:
                self.kept = self._slots // KEPT_SHARE

    def end(self, destination: bytes, request: Hashable) -> None:
        """It holds none any more."""
        requests = self._open[destination]
        began = requests.began.pop(request)
        if requests.quick:
            self._held_by_quick -= 1
            if self._held_by_quick < self._hot:
                self.kept = 0
        if requests.quick is not (time.monotonic() - began < QUICK):
            self._turn(requests)
        if not requests.began:
            del self._open[destination]
            _remember(self._quick if requests.quick else self._slow, destination)

    def _turn(self, requests: _Requests) -> None:
        requests.quick = not requests.quick
        self._held_by_quick += len(requests.began) * (1 if requests.quick else -1)
        self.kept = self._slots // KEPT_SHARE if self._held_by_quick >= self._hot else 0

    def review(self) -> None:
        """Take those for slow that have many requests open for long."""
        then = time.monotonic() - QUICK
        few = self._slots // SLOW_SHARE
        for requests in self._open.values():
            oldest = next(islice(requests.began.values(), few, None), then)
            if requests.quick and oldest < then:
                self._turn(requests)

    def named(self, free: int) -> list[bytes | int]:
        """Destination, number of its open requests …; -1 for a quick one. `free`: slots."""
        names: list[bytes | int] = []
        for destination, requests in self._open.items():
            names += (destination, -1 if requests.quick else len(requests.began))
        for destination in islice(reversed(self._quick), NAMED):
            names += (destination, -1)
        if 2 * free <= self._slots:
            names += self._slow_at_rest()
        return names

    def _slow_at_rest(self) -> Iterator[bytes | int]:
        # As if one request were open: what is left for a first one is for destinations not known.
        for destination in self._slow:
            yield destination
            yield 1


def _remember(known: dict[bytes, None], destination: bytes) -> None:
    known[destination] = None
    if len(known) > KNOWN:
        del known[next(iter(known))]
