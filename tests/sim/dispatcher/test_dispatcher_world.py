"""Some schedules of the real dispatcher in each run of the tests; many more in `make sim`."""

from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import pytest

from tests.sim.campaign import broken
from tests.sim.dispatcher.campaign import catch, simulate
from tests.sim.dispatcher.planted import PLANTED, Planted
from tests.sim.dispatcher.world import SimStore, World

SCHEDULES = 60
SOON = 30  # schedules
MANY = 7  # mistakes

# Mistakes of earlier versions that a schedule has found.
OURS = ("a task that has not started is cancelled, and its claim is never released",)


def test_simulate_breaks_no_promise_of_the_dispatcher() -> None:
    figures = simulate(0, SCHEDULES)
    assert figures.failures == []
    assert figures.events.keys() == {"kills", "stops", "pauses", "cuts", "outages"}


@dataclass
class Trace:
    """The calls of the store."""

    calls: list[tuple[str, list[bytes], Any]] = field(default_factory=list)

    def add(self, script: str, args: list[bytes], reply: Any) -> None:
        """One of them."""
        self.calls.append((script, args, reply))


def test_world_of_a_seed_is_always_the_same_schedule_of_the_dispatcher() -> None:
    store, traces = SimStore(), []
    for _ in range(2):
        trace = Trace()
        store.server.trace = trace.add
        assert broken(World(store, 7)) is None
        traces.append(trace.calls)
    assert traces[0] == traces[1]
    assert traces[0]


def test_planted_mistakes_have_a_name_each() -> None:
    assert len({mistake.name for mistake in PLANTED}) == len(PLANTED) >= 12


@pytest.mark.parametrize("mistake", PLANTED, ids=lambda mistake: mistake.name)
def test_planted_mistake_finds_its_place_in_the_dispatcher(mistake: Planted) -> None:
    assert mistake.code() != mistake.function.__code__


def test_planted_mistake_without_a_place_in_the_dispatcher_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 0 places"):
        Planted("not there", PLANTED[0].function, "not there", "").code()


def test_catch_finds_most_mistakes_in_the_dispatcher_soon() -> None:
    latest_first = reversed(range(len(PLANTED)))
    caught = (number for number in latest_first if catch(number, SOON).reason)
    assert len(list(islice(caught, MANY))) == MANY


@pytest.mark.parametrize("name", OURS)
def test_catch_finds_mistakes_of_earlier_dispatchers_again(name: str) -> None:
    [number] = [number for number, one in enumerate(PLANTED) if one.name == name]
    caught = catch(number, 1_000)
    assert caught.reason
    assert broken(World(SimStore(), caught.schedules - 1)) is None
