"""When to look for due messages: timers and signals become one "look now"."""

import asyncio
import math
import random
import time
from typing import Final

from scheduler_api.delivery.timer import Timer

SAFETY_POLL: Final = 10.0  # seconds at the most between two looks: the price of a lost signal


class Wakeup:
    """One sleeper, many reasons to wake it."""

    def __init__(self, safety_poll: float = SAFETY_POLL) -> None:
        self._safety_poll = safety_poll
        self._event = asyncio.Event()
        self._alarm: Timer | None = None  # made by its first use, as it wants a running loop
        self._set_to: float | None = None

    def now(self) -> None:
        """Look now."""
        self._event.set()

    def at(self, instant: float) -> None:
        """Look at that instant of time.monotonic() at the latest; the earliest counts."""
        if self._set_to is None or instant < self._set_to:
            self._alarm = self._alarm or Timer(self._event.set)
            self._alarm.set(instant)
            self._set_to = instant

    def within(self, seconds: float) -> None:
        """The same, so many seconds from now."""
        self.at(time.monotonic() + seconds)

    async def wait(self) -> None:
        """Sleep until it is time to look; what asked for that look is then forgotten."""
        # Jitter, so that replicas which started together do not poll together.
        self.within(self._safety_poll * random.uniform(0.9, 1.0))  # noqa: S311
        await self._event.wait()
        self._event.clear()
        self._set_to = None

    def close(self) -> None:
        """No timer rings from now on."""
        self._set_to = -math.inf
        if self._alarm is not None:
            self._alarm.close()
