"""Whether the store of one partition answers, since when, and how long to wait before a retry."""

import math
import random
import time

import structlog

from scheduler_api.delivery.timing import MAX_BACKOFF, MIN_BACKOFF

log = structlog.get_logger()


class StoreHealth:
    """The health of one partition's store, as this process has seen it."""

    def __init__(self, partition: int = 0, outage: float = math.inf) -> None:
        """`outage`: seconds without an answer after which the store may have been away."""
        self._partition = partition
        self._outage = outage
        self._answered_at = 0.0  # monotonic seconds of the last answer
        self._failures = 0  # since the last answer
        self.steady_since: float | None = None  # monotonic seconds; None: it does not answer

    @property
    def answers(self) -> bool:
        """Whether the last call succeeded."""
        return self.steady_since is not None

    def note_answer(self) -> None:
        """A call succeeded."""
        now, was_away = time.monotonic(), self.steady_since is None
        if was_away or now - self._answered_at > self._outage:
            self.steady_since = now
        self._answered_at = now
        if was_away:
            self._failures = 0
            log.info("store_connected", partition=self._partition)

    def note_disturbance(self) -> None:
        """The store answers, but something happened that may have ended leases."""
        self.steady_since = time.monotonic()

    def note_failure(self, error: Exception) -> float:
        """A call failed: the seconds to wait before a retry, growing, with jitter."""
        is_news = self.steady_since is not None or not self._failures
        self.steady_since = None
        self._failures += 1
        if is_news:
            # The error itself, not its text: the log shows it without raising.
            facts = {"reason": str(error), "cause": error.__cause__}
            log.warning("store_lost", partition=self._partition, **facts)
        wait = min(MAX_BACKOFF, MIN_BACKOFF * 2.0 ** min(self._failures - 1, 8))
        return wait * random.uniform(0.5, 1.0)  # noqa: S311

    def steady_for(self) -> float:
        """Seconds since the last outage or disturbance; 0 while the store does not answer."""
        return 0.0 if self.steady_since is None else time.monotonic() - self.steady_since
