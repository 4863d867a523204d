"""The store's clock, estimated from the times in its replies."""

import math
from typing import Final

MAX_CLOCK_DRIFT: Final = 1e-4  # of one clock against the other: 100 parts per million


class StoreClock:
    """The store's wall clock relative to this process's monotonic clock.

    Each reply bounds the difference: the store read its clock, cut to the millisecond, between the
    request and the reply. The estimate is the highest lower bound so far, so it is never ahead of
    the store's clock by more than drift. It follows a clock that was set at once, because it must
    lie within the newest bounds.
    """

    def __init__(self) -> None:
        self._offset_ms = 0.0  # the store's clock − the local one
        self._bounds = (-math.inf, math.inf)  # of the offset, by the last reply alone
        self._updated = 0.0  # local time of the last reply, seconds

    def observe(self, now_ms: int, sent: float, received: float) -> float:
        """Record that the store's clock showed `now_ms` between two local times (seconds).

        Returns the seconds by which it was set since the last reply, without what network delays
        could explain; negative: backward.
        """
        lowest, highest = now_ms - received * 1000, now_ms + 1 - sent * 1000
        least = self._offset_ms - (received - self._updated) * 1000 * MAX_CLOCK_DRIFT
        set_by = max(0.0, lowest - self._bounds[1]) + min(0.0, highest - self._bounds[0])
        self._offset_ms = min(max(least, lowest), highest)
        self._bounds, self._updated = (lowest, highest), received
        return set_by / 1000

    def store_ms(self, local: float) -> float:
        """The time of the store's clock (ms since 1970) at a local time (seconds)."""
        return local * 1000 + self._offset_ms

    def local_time(self, store_ms: float) -> float:
        """The local time (seconds) at which the store's clock shows `store_ms`."""
        return (store_ms - self._offset_ms) / 1000
