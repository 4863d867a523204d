"""The limits that destinations had, and since when: what the open requests are compared with."""

import math
from typing import TYPE_CHECKING

from scheduler_api.domain.destination import Limits
from scheduler_api.store.destinations import share

if TYPE_CHECKING:
    from tests.sim.dispatcher.world import World


class LimitHistory:
    """The limits of one world's destinations."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._set: dict[bytes, list[tuple[float, Limits | None]]] = {}  # with monotonic seconds

    def set(self, name: bytes, limits: Limits | None) -> None:
        """A caller has set a destination's limits, or deleted them (None)."""
        before = self._set.setdefault(name, [(0.0, None)])
        before.append((self._world.loop.time(), limits))

    def highest(self, partition: int, name: bytes, since: float) -> int:
        """The highest limit of a destination in a partition, at any instant since then."""
        history = self._set.get(name, [(0.0, None)])
        ends = (*(at for at, _ in history[1:]), math.inf)
        return max(
            self._share(partition, limits)
            for (_, limits), end in zip(history, ends, strict=True)
            if end >= since
        )

    def _share(self, partition: int, limits: Limits | None) -> int:
        if limits and limits.paused:
            return 0
        options = self._world.options
        concurrency = (limits and limits.concurrency) or options.concurrency
        return share(concurrency, partition, options.partitions)
