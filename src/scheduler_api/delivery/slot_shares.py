"""Which destinations hold the slots of this process, and which of them respond quickly.

A quick destination may have any slot. The others share, see claim.lua: however many of them hang,
some slots stay free. Each process estimates this alone; a wrong estimate only makes a destination
wait for a moment.
"""

import time
from collections.abc import Hashable, Iterator
from itertools import islice
from typing import Final

from scheduler_api.delivery.timing import QUICK_REQUEST

SLOW_SHARE: Final = 32  # a quick destination may have 1/32 of the slots open for long
HOT_SHARE: Final = 2  # when quick destinations hold 1/2 of the slots, some are kept free …
KEPT_SHARE: Final = 16  # … namely 1/16
MAX_KNOWN: Final = 512  # destinations remembered without open requests, of quick and slow each
MAX_NAMED: Final = 32  # quick destinations without open requests that are passed to a claim


class _Requests:
    """The open requests to one destination."""

    __slots__ = ("began", "quick")

    def __init__(self, *, quick: bool) -> None:
        self.began: dict[Hashable, float] = {}  # request → monotonic seconds, the oldest first
        self.quick = quick  # the last request ended soon, and few are open for long


class SlotShares:
    """The open requests of a process by destination."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._open: dict[bytes, _Requests] = {}
        # Destinations without open requests, the latest last.
        self._quick: dict[bytes, None] = {}
        self._slow: dict[bytes, None] = {}
        self._held_by_quick = 0  # slots
        self._hot = max(1, slots // HOT_SHARE)
        # Slots to keep free while quick destinations hold most of them: these may begin to hang.
        self.kept = 0

    def claim_limit(self, free: int) -> int:
        """How many free slots one claim may fill, if all are filled for quick destinations."""
        cold = self._hot - self._held_by_quick
        return min(free, max(cold, free - self._slots // KEPT_SHARE)) if cold > 0 else free

    def begin(self, destination: bytes, request: Hashable) -> None:
        """A request takes a slot."""
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
        """The request gives its slot back."""
        requests = self._open[destination]
        began = requests.began.pop(request)
        if requests.quick:
            self._held_by_quick -= 1
            if self._held_by_quick < self._hot:
                self.kept = 0
        if requests.quick is not (time.monotonic() - began < QUICK_REQUEST):
            self._toggle(requests)
        if not requests.began:
            del self._open[destination]
            _remember(self._quick if requests.quick else self._slow, destination)

    def is_quick(self, destination: bytes) -> bool:
        """Whether the destination responds quickly; False if it is not known."""
        requests = self._open.get(destination)
        return requests.quick if requests else destination in self._quick

    def is_open(self, destination: bytes) -> bool:
        """Whether a request to the destination is open."""
        return destination in self._open

    def _toggle(self, requests: _Requests) -> None:
        requests.quick = not requests.quick
        self._held_by_quick += len(requests.began) * (1 if requests.quick else -1)
        self.kept = self._slots // KEPT_SHARE if self._held_by_quick >= self._hot else 0

    def mark_slow(self) -> None:
        """Regard destinations as slow that have many requests open for long."""
        then = time.monotonic() - QUICK_REQUEST
        few = self._slots // SLOW_SHARE
        for requests in self._open.values():
            oldest = next(islice(requests.began.values(), few, None), then)
            if requests.quick and oldest < then:
                self._toggle(requests)

    def named(self, free: int) -> list[bytes | int]:
        """Destination, number of its open requests, and so on; as claim.lua reads them.

        Instead of the number, for a quick destination: -1 without open requests, -2 with some.
        `free`: slots; slow destinations without open requests are only named when few are free.
        """
        names: list[bytes | int] = []
        for destination, requests in self._open.items():
            names += (destination, -2 if requests.quick else len(requests.began))
        for destination in islice(reversed(self._quick), MAX_NAMED):
            names += (destination, -1)
        if 2 * free <= self._slots:
            names += self._slow_at_rest()
        return names

    def _slow_at_rest(self) -> Iterator[bytes | int]:
        # As if one request were open: slots left for a first request are for unknown destinations.
        for destination in self._slow:
            yield destination
            yield 1


def _remember(known: dict[bytes, None], destination: bytes) -> None:
    known[destination] = None
    if len(known) > MAX_KNOWN:
        del known[next(iter(known))]
