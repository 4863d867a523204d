"""Many schedules of the real dispatcher over several processes, and the planted mistakes."""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Final

import msgspec

from tests.sim.campaign import Catch, Failure, broken, in_chunks, pool
from tests.sim.dispatcher.planted import PLANTED, Planted, planted
from tests.sim.dispatcher.world import SimStore, World
from tests.sim.options import shown

CHUNK: Final = 50  # schedules of one task


class Figures(msgspec.Struct):
    """The figures of many schedules."""

    schedules: int = 0
    sends: int = 0
    events: dict[str, int] = {}
    failures: list[Failure] = []

    def add(self, other: "Figures") -> None:
        """Add the figures of other schedules."""
        self.schedules += other.schedules
        self.sends += other.sends
        self.events = dict(Counter(self.events) + Counter(other.events))
        self.failures = [*self.failures, *other.failures]


@functools.cache
def _store() -> SimStore:
    return SimStore()


def simulate(first: int, count: int) -> Figures:
    """Run the schedules of `count` seeds."""
    figures = Figures(schedules=count)
    for seed in range(first, first + count):
        world = World(_store(), seed)
        reason = broken(world)
        if reason is not None:
            figures.failures.append(Failure(seed, shown(world.options), reason))
        figures.sends += world.judge.sends
        figures.events = dict(Counter(figures.events) + world.counts)
    return figures


def campaign(first: int, count: int, processes: int | None = None) -> Iterator[Figures]:
    """Run all schedules; yields the figures so far after each chunk."""
    return in_chunks(simulate, Figures(), CHUNK, first, count, processes)


def catch(number: int, budget: int) -> Catch:
    """Run schedules until one of them shows the mistake of this number."""
    mistake: Planted = PLANTED[number]
    with planted(mistake):
        for seed in range(budget):
            reason = broken(World(_store(), seed))
            if reason is not None:
                return Catch(mistake.name, seed + 1, reason)
    return Catch(mistake.name, budget, None)


def catch_all(budget: int, processes: int | None = None) -> list[Catch]:
    """Each planted mistake."""
    with pool(processes) as workers:
        return list(workers.map(catch, range(len(PLANTED)), [budget] * len(PLANTED)))
