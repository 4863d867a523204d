"""Holds claimed messages until their instant.

Messages are claimed a little ahead, as a claim takes as long as the store's disk: so a message's
instant does not wait for its claim.
"""

import asyncio
import heapq
import time
from itertools import count
from typing import Final

from scheduler_api.delivery.timer import Timer

_ROUNDING: Final = 1e-5  # seconds: more than the conversion between two clocks loses


class DelayQueue:
    """Tasks that wait for an instant each, with one timer for all."""

    def __init__(self) -> None:
        self._timer: Timer | None = None  # created on first use, as it needs a running loop
        self._order = count()  # breaks ties between equal instants
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []  # a heap

    async def wait(self, at: float) -> None:
        """Sleep until `at`, in monotonic seconds: never less."""
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (at + _ROUNDING, next(self._order), future))
        if self._waiting[0][2] is future:
            self._set_timer()
        await future

    def _set_timer(self) -> None:
        self._timer = self._timer or Timer(self._wake_due)
        self._timer.set(self._waiting[0][0])

    def _wake_due(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, future = heapq.heappop(self._waiting)
            if not future.done():  # it is done if its task was cancelled
                future.set_result(None)
        if self._waiting:
            self._set_timer()

    def close(self) -> None:
        """Release the timer; no task may wait any more."""
        if self._timer is not None:
            self._timer.close()
            self._timer = None
