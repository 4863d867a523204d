"""Checks that claims keep to each destination's limit, rate, pause and probes.

It knows the limits that callers set, and which requests reached their destination.
"""

from collections import Counter
from collections.abc import Mapping

from scheduler_api.domain.destination import Limits
from scheduler_api.store.audit.invariants import BREAKS_AT
from scheduler_api.store.destinations import share
from tests.sim.permit_checker import (
    QUEUED_PER_PERMIT,
    ClaimText,
    Texts,
    counts,
    in_flight,
    split,
)

FIRST_PAUSE, MAX_PAUSE = 1_000, 60_000  # ms until a probe; see lua/queue/settle.lua
AHEAD = 100  # ms that a rate may run ahead; see lua/lib/flow.lua

Here = tuple[int, str]  # a partition, a destination


class Flow:
    """The destinations of one world, as callers set them and as outcomes show them."""

    def __init__(self, concurrency: int, partitions: int) -> None:
        self.limits: dict[str, Limits] = {}  # set by callers
        self._concurrency = concurrency
        self._partitions = partitions
        self._most = Counter[str]()  # the highest limit that was set so far
        self._began: dict[str, int] = {}  # ms, from which its rate holds
        self._granted: Counter[Here] = Counter()  # permits of claims since then
        self._misses: Counter[Here] = Counter()  # failures to connect in a row
        self._probe_at: dict[Here, int] = {}  # ms

    def set_limit(self, name: str, limits: Limits | None, now: int) -> None:
        """A caller has set its limits, or deleted them (None)."""
        old = self.limits.pop(name, None)
        if limits:
            self.limits[name] = limits
            self._most[name] = max(self._most[name], limits.concurrency or 0)
        if (old and old.rate) != (limits and limits.rate):
            self._began[name] = now
            for partition in range(self._partitions):
                self._granted[partition, name] = 0

    def clock_moved(self, now: int) -> None:
        """The store's clock was set: rates start again, as a step back must not block them."""
        self._began = dict.fromkeys(self._began, now)
        self._granted.clear()

    def ever(self, name: str) -> int:
        """The most requests that may be open to it, under the highest limit so far."""
        return max(self._most[name], self._concurrency, self._partitions)

    def missed_before(self, partition: int, name: str, now: int) -> str:
        """Record all failures but one before it counts as unreachable → its field in the store."""
        here = partition, name
        self._misses[here], self._probe_at[here] = BREAKS_AT - 1, now
        return f"{BREAKS_AT - 1} {now}"

    def reached(self, partition: int, name: str, reached: bool | None, now: int) -> None:
        """An outcome was settled; `reached`: whether the destination was reached, None: unknown."""
        here = partition, name
        if reached:
            self._misses[here] = 0
        elif reached is False and not (self._broken(here) and now < self._probe_at[here]):
            self._misses[here] += 1
            pauses = self._misses[here] - BREAKS_AT
            self._probe_at[here] = now + min(MAX_PAUSE, FIRST_PAUSE * 2 ** max(0, pauses))

    def failures(self, name: str) -> int:
        """Failures to connect in a row, in the partition that has the most."""
        return max(self._misses[partition, name] for partition in range(self._partitions))

    def _broken(self, here: Here) -> bool:
        return self._misses[here] >= BREAKS_AT

    def objection(
        self,
        partition: int,
        new: list[ClaimText],
        inflight: Texts,
        waiting: Mapping[bytes | int, bytes | int],
        now: int,
        latest: int,
    ) -> str | None:
        """What is wrong with a claim.

        `new`: what it wrote; `inflight`: what was counted then; `waiting`: how many of its
        messages the process said that wait; `latest`: the latest ms that the store's clock has
        shown.
        """
        permits = Counter(claim.destination for claim in new if claim.permit)
        for destination, count in permits.items():
            here = partition, destination.decode()
            self._granted[here] += count
            objection = self._objection(here, in_flight(inflight[destination]), now, latest)
            if objection:
                return f"{count} more permits for {here[1]}: {objection}"
        queued = Counter((claim.destination, claim.worker_id) for claim in new if not claim.permit)
        for (destination, worker_id), count in queued.items():
            here, text = (partition, destination.decode()), inflight[destination]
            before = int(waiting.get(destination, 0))
            held = counts(text)[worker_id][0]
            objection = self._may_not_queue(here, in_flight(text), held, before + count)
            if objection:
                return f"{count} more are queued for {here[1]}: {objection}"
        return None

    def _objection(self, here: Here, in_flight: int, now: int, latest: int) -> str | None:
        name = here[1]
        limits = self.limits.get(name, Limits())
        limit = self._limit(here)
        if limits.paused:
            return "it is paused"
        if in_flight > limit:
            return f"{in_flight} are in flight, its limit is {limit}"
        if self._broken(here) and in_flight > 1:
            return "it was not reached, and has more than a probe"
        if self._broken(here) and now < self._probe_at[here]:
            return "it was not reached, and its next probe is not due"
        if limits.rate:
            interval = limits.rate.interval_ms * self._partitions
            in_time = (latest - self._began[name] + AHEAD) // interval + 1
            if self._granted[here] > in_time:
                return f"{self._granted[here]} since its rate holds, {in_time} are in time"
        return None

    def _may_not_queue(self, here: Here, in_flight: int, permits: int, queued: int) -> str | None:
        limits, limit = self.limits.get(here[1], Limits()), self._limit(here)
        if limits.paused or limits.rate:
            return "it is paused, or has a rate"
        if self._broken(here):
            return "it was not reached"
        if in_flight != limit:
            return f"{in_flight} are in flight, its limit is {limit}"
        if queued > QUEUED_PER_PERMIT * permits:
            return f"{queued} wait for {permits} permits"
        return None

    def may_unpark(self, partition: int, name: str, in_flight: int) -> bool:
        """Whether an outcome may lead to another claim."""
        limits = self.limits.get(name, Limits())
        return not limits.paused and in_flight <= self._limit((partition, name))

    def _limit(self, here: Here) -> int:
        partition, name = here
        concurrency = self.limits.get(name, Limits()).concurrency or self._concurrency
        return share(concurrency, partition, self._partitions)


def new_claims(before: Texts, after: Texts) -> list[ClaimText]:
    """The claims that were written between two states of `claims`."""
    found = (split(claim) for one, claim in after.items() if before.get(one) != claim)
    return [claim for claim in found if claim]
