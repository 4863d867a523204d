"""Statistics of attempts: how many succeeded, and how long they took, in few numbers."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

_BUCKET_GROWTH: Final = 1.25  # from one bucket to the next: the middle of one is at most 12 % off


def bucket(duration_ms: int) -> int:
    """The number of the bucket for a duration: 0 for 0 ms, 61 for 15 minutes."""
    return int(math.log(duration_ms + 1, _BUCKET_GROWTH))


class AttemptStats(msgspec.Struct, frozen=True):
    """Statistics of the attempts in some period."""

    delivered: int = 0  # successful attempts
    durations: Mapping[int, int] = {}  # bucket → number of attempts

    def __add__(self, other: "AttemptStats") -> "AttemptStats":
        durations = Counter(self.durations) + Counter(other.durations)
        return AttemptStats(self.delivered + other.delivered, durations)

    @property
    def attempts(self) -> int:
        """The number of attempts."""
        return sum(self.durations.values())

    @property
    def success_rate(self) -> float | None:
        """The part of the attempts that succeeded, 0–1; None: no attempts."""
        return round(self.delivered / self.attempts, 4) if self.attempts else None

    def percentile_ms(self, part: float) -> int | None:
        """The duration that `part` (0–1) of the attempts did not exceed; None: no attempts."""
        rank = math.ceil(part * self.attempts)
        for number in sorted(self.durations):
            rank -= self.durations[number]
            if rank <= 0:
                return round(math.pow(_BUCKET_GROWTH, number + 0.5) - 1)
        return None
