"""The store's clock as this process can know it without asking; kept by queue.py."""

import math
from typing import Final

DRIFT: Final = 1e-4  # of one clock against the other, at the most: 100 parts in a million


class StoreClock:
    """The store's wall clock against ours, the monotonic one: never ahead of it but by drift.

    Each reply bounds the difference: the store read its clock, cut to the millisecond, after we
    asked and before we heard. The highest of the lower bounds comes close to the truth, and a
    clock that was set is followed at once, as the difference must lie between the newest bounds.
    """

    def __init__(self) -> None:
        self._ahead_ms = 0.0  # the store's clock − ours
        self._bounds = (-math.inf, math.inf)  # of that, by the last reply alone
        self._heard = 0.0  # when that was last corrected, by ours, seconds

    def heard(self, now_ms: int, asked: float, heard: float) -> float:
        """The store's clock showed `now_ms` between two instants of ours, seconds.

        Returns the seconds that it was set by since the last reply, for certain: however long
        either was under way; below 0: back.
        """
        lowest, highest = now_ms - heard * 1000, now_ms + 1 - asked * 1000
        least = self._ahead_ms - (heard - self._heard) * 1000 * DRIFT
        set_by = max(0.0, lowest - self._bounds[1]) + min(0.0, highest - self._bounds[0])
        self._ahead_ms = min(max(least, lowest), highest)
        self._bounds, self._heard = (lowest, highest), heard
        return set_by / 1000

    def at(self, ours: float) -> float:
        """What it showed, or will show, at an instant of ours; ms since 1970."""
        return ours * 1000 + self._ahead_ms

    def when(self, shown_ms: float) -> float:
        """The instant of ours, in seconds, at which it shows that."""
        return (shown_ms - self._ahead_ms) / 1000
