"""Holds back what was claimed ahead of its instant; asked by the dispatcher.

A claim takes as long as the store's disk; made a little ahead of a message's instant, that is over
when the instant comes.
"""

import asyncio
import heapq
import time
from itertools import count
from typing import Final

from scheduler_api.delivery.timer import Timer

AHEAD: Final = 0.01  # seconds before its instant from which on a message is claimed
_ROUNDING: Final = 1e-5  # seconds: more than what two clocks lose when one is told by the other


class DelayQueue:
    """Who waits for an instant, by one timer for all of them."""

    def __init__(self) -> None:
        self._alarm: Timer | None = None  # made by its first use, as it wants a running loop
        self._order = count()  # of those that wait for the same instant
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap

    async def wait(self, at: float) -> None:
        """Sleep until that instant of time.monotonic(), seconds: never less."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (at + _ROUNDING, next(self._order), future))
        if self._waiting[0][2] is future:
            self._set()
        await future

    def _set(self) -> None:
        self._alarm = self._alarm or Timer(self._ring)
        self._alarm.set(self._waiting[0][0])

    def _ring(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():  # who waited was cancelled
                future.set_result(None)
        if self._waiting:
            self._set()

    def close(self) -> None:
        """To be called when nobody waits any more."""
        if self._alarm is not None:
            self._alarm.close()
            self._alarm = None
