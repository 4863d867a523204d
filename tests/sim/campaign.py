"""Many schedules on all cores, and their figures; which planted mistakes they catch."""

import functools
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final, Protocol, Self, TypeVar

import msgspec
from structlog.testing import capture_logs

from tests.sim.options import shown
from tests.sim.planted import PLANTED, Planted
from tests.sim.store_on_model import StoreOnModel
from tests.sim.world import World

CHUNK: Final = 500  # schedules of one task
GARBAGE: Final = 200_000  # new objects after which Python searches for reference cycles


class Failure(msgspec.Struct, frozen=True):
    """A schedule in which something was broken."""

    seed: int
    options: str  # all that the seed drew before the first step
    reason: str


class Figures(msgspec.Struct):
    """The figures of many schedules."""

    schedules: int = 0
    calls: int = 0  # of scripts, also those that failed because the store was away
    messages: int = 0  # that callers created
    sends: int = 0
    repeats: int = 0  # requests for an attempt that a receiver had already seen
    exposed: int = 0  # requests that a crash, pause or partition left open: each may be repeated
    events: dict[str, int] = {}
    failures: list[Failure] = []

    def add(self, other: "Figures") -> None:
        """Add the figures of other schedules."""
        for name in ("schedules", "calls", "messages", "sends", "repeats", "exposed"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.events = dict(Counter(self.events) + Counter(other.events))
        self.failures = [*self.failures, *other.failures]


class Catch(msgspec.Struct, frozen=True):
    """Whether a planted mistake was caught."""

    name: str
    schedules: int  # until it was caught; the whole budget if it was not
    reason: str | None  # None: it was not caught


@functools.cache
def _machine() -> StoreOnModel:
    return StoreOnModel()


def simulate(first: int, count: int) -> Figures:
    """Run the schedules of `count` seeds."""
    machine, figures = _machine(), Figures()
    before = machine.server.calls
    for seed in range(first, first + count):
        world = World(machine, seed)
        reason = broken(world)
        if reason is not None:
            figures.failures.append(Failure(seed, shown(world.options), reason))
        figures.messages += len(world.ledger.offers)
        figures.sends += world.ledger.sends
        figures.repeats += world.ledger.repeats
        figures.exposed += world.ledger.exposed
        figures.events = dict(Counter(figures.events) + world.counts)
    figures.schedules, figures.calls = count, machine.server.calls - before
    return figures


class Schedule(Protocol):
    """A schedule of either simulation."""

    def run(self) -> None:
        """All of it. Raises: Broken, or an error of the code that runs in it."""


def broken(world: Schedule) -> str | None:
    """The promise that a schedule broke, or the error of the code in it; None: nothing."""
    try:
        with capture_logs():  # writing the log would cost more than the schedule
            world.run()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def pool(processes: int | None) -> ProcessPoolExecutor:
    """Processes for schedules, one a core by default."""
    return ProcessPoolExecutor(processes or os.cpu_count(), initializer=_collect_seldom)


def _collect_seldom() -> None:
    gc.freeze()
    gc.set_threshold(GARBAGE)


class Addable(Protocol):
    """The figures of either simulation."""

    def add(self, other: Self) -> None:
        """Add the figures of other schedules."""


Sum = TypeVar("Sum", bound=Addable)


def in_chunks(
    simulate: Callable[[int, int], Sum],
    total: Sum,
    chunk: int,
    first: int,
    count: int,
    processes: int | None,
) -> Iterator[Sum]:
    """Run `count` schedules, `chunk` in a task; yields the total so far after each task."""
    chunks = range(first, first + count, chunk)
    sizes = [min(chunk, first + count - start) for start in chunks]
    with pool(processes) as workers:
        for figures in workers.map(simulate, chunks, sizes):
            total.add(figures)
            yield total


def campaign(first: int, count: int, processes: int | None = None) -> Iterator[Figures]:
    """Run all schedules; yields the figures so far after each chunk."""
    return in_chunks(simulate, Figures(), CHUNK, first, count, processes)


def catch(planted: Planted, budget: int) -> Catch:
    """Run schedules until one of them shows the mistake."""
    machine = StoreOnModel(planted.sources(), planted.rules)
    for seed in range(budget):
        reason = broken(World(machine, seed))
        if reason is not None:
            return Catch(planted.name, seed + 1, reason)
    return Catch(planted.name, budget, None)


def catch_all(budget: int, processes: int | None = None) -> list[Catch]:
    """Each planted mistake."""
    with pool(processes) as workers:
        return list(workers.map(catch, PLANTED, [budget] * len(PLANTED)))
