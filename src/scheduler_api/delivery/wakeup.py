"""When to look for due messages: timers and signals become one "look now"."""

import asyncio
import random
from typing import Final

SAFETY_POLL: Final = 10.0  # seconds at the most between two looks: the price of a lost signal


class Wakeup:
    """One sleeper, many reasons to wake it."""

    def __init__(self, safety_poll: float = SAFETY_POLL) -> None:
        self._safety_poll = safety_poll
        self._event = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._at = 0.0  # when it rings, by the loop's clock; a Handle of uvloop cannot tell

    def now(self) -> None:
        """Look now."""
        self._event.set()

    def within(self, seconds: float) -> None:
        """Look after that time at the latest; the earliest of several counts."""
        loop = asyncio.get_running_loop()
        at = loop.time() + seconds
        if self._timer is None or at < self._at:
            self._cancel_timer()
            self._timer, self._at = loop.call_at(at, self._event.set), at

    async def wait(self) -> None:
        """Sleep until it is time to look; what asked for that look is then forgotten."""
        # Jitter, so that replicas which started together do not poll together.
        self.within(self._safety_poll * random.uniform(0.8, 1.0))  # noqa: S311
        await self._event.wait()
        self._event.clear()
        self._cancel_timer()

    def _cancel_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None
