"""The limits that destinations had, and since when: what the open requests are compared with."""

from typing import TYPE_CHECKING

from scheduler_api.domain.destination import Limits
from scheduler_api.store.destinations import share

if TYPE_CHECKING:
    from tests.sim.dispatcher.world import World


class LimitHistory:
    """The limits of one world's destinations."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._set: dict[bytes, list[tuple[float, int]]] = {}  # monotonic seconds, limit

    def set(self, name: bytes, limits: Limits | None) -> None:
        """A caller has set a destination's limits, or deleted them (None)."""
        before = self._set.setdefault(name, [(0.0, self._total(None))])
        before.append((self._world.loop.time(), self._total(limits)))

    def highest(self, name: bytes, since: float) -> int:
        """The highest limit of a destination at any instant since then."""
        limits = self._set.get(name, [(0.0, self._total(None))])
        ends = [at for at, _ in limits[1:]]
        in_force = [limit for (_, limit), end in zip(limits, ends, strict=False) if end >= since]
        return max(*in_force, limits[-1][1], 0)

    def _total(self, limits: Limits | None) -> int:
        """Of all partitions together."""
        if limits and limits.paused:
            return 0
        options = self._world.options
        limit = (limits and limits.concurrency) or options.concurrency
        return sum(share(limit, it, options.partitions) for it in range(options.partitions))
