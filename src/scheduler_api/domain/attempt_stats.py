"""What attempts to a destination came to, in few numbers; asked by the store and the API."""

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec

_GROWTH: Final = 1.25  # of a bucket, from the one below it: its middle is right within 12 %


def bucket(duration_ms: int) -> int:
    """Which of the buckets it falls into: 0 for 0 ms, 61 for 15 minutes."""
    return int(math.log(duration_ms + 1, _GROWTH))


class Results(msgspec.Struct, frozen=True):
    """The attempts of some time."""

    delivered: int = 0
    durations: Mapping[int, int] = {}  # bucket → number of attempts

    def __add__(self, other: "Results") -> "Results":
        durations = Counter(self.durations) + Counter(other.durations)
        return Results(self.delivered + other.delivered, durations)

    @property
    def attempts(self) -> int:
        """How many."""
        return sum(self.durations.values())

    @property
    def success_rate(self) -> float | None:
        """The part that was delivered, 0–1; None of no attempts."""
        return round(self.delivered / self.attempts, 4) if self.attempts else None

    def duration_ms(self, part: float) -> int | None:
        """What that part of the attempts, 0–1, took at the most; None of no attempts."""
        rank = math.ceil(part * self.attempts)
        for number in sorted(self.durations):
            rank -= self.durations[number]
            if rank <= 0:
                return round(math.pow(_GROWTH, number + 0.5) - 1)
        return None
