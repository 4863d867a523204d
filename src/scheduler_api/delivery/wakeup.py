"""Wakes one sleeping loop at the earliest of several instants, or at once."""

import asyncio
import math
import random
import time

from scheduler_api.delivery.timer import Timer
from scheduler_api.delivery.timing import SAFETY_POLL


class Wakeup:
    """One sleeper, many reasons to wake it."""

    def __init__(self, safety_poll: float = SAFETY_POLL) -> None:
        """`safety_poll`: longest sleep, seconds."""
        self._safety_poll = safety_poll
        self._event = asyncio.Event()
        self._timer: Timer | None = None  # created on first use, as it needs a running loop
        self._set_to: float | None = None  # monotonic seconds of the earliest instant

    def now(self) -> None:
        """Wake at once."""
        self._event.set()

    def at(self, instant: float) -> None:
        """Wake at that instant, in monotonic seconds; the earliest of several counts."""
        if self._set_to is None or instant < self._set_to:
            self._timer = self._timer or Timer(self._event.set)
            self._timer.set(instant)
            self._set_to = instant

    def within(self, seconds: float) -> None:
        """Wake after this many seconds; the earliest of several counts."""
        self.at(time.monotonic() + seconds)

    async def wait(self) -> None:
        """Sleep until it is time; then all reasons are forgotten."""
        # Jitter, so that replicas that started together do not poll together.
        self.within(self._safety_poll * random.uniform(0.9, 1.0))  # noqa: S311
        await self._event.wait()
        self._event.clear()
        self._set_to = None

    def close(self) -> None:
        """Release the timer; later calls of `at` set none."""
        self._set_to = -math.inf
        if self._timer is not None:
            self._timer.close()
