"""Some schedules in each run of the tests; many more in `make sim`."""

import pytest

from tests.sim.campaign import broken, simulate
from tests.sim.world import Machine, World

SCHEDULES = 700

# Seeds that once showed a mistake of ours → what it was.
FOUND = {
    48: "a claim asked for again kept the lost one's lease, and a request started after its end",
}


def test_no_schedule_breaks_a_promise() -> None:
    figures = simulate(0, SCHEDULES)
    assert figures.failures == []
    assert figures.schedules == SCHEDULES
    assert figures.repeats <= figures.exposed


def test_schedules_meet_every_fault() -> None:
    events = simulate(SCHEDULES, 200).events
    assert events.keys() == {
        *("crashes", "stops", "pauses", "partitions"),
        *("replies lost", "store restarts", "outages", "clock steps"),
    }


def test_a_seed_is_always_the_same_schedule() -> None:
    machine = Machine()
    calls: list[tuple[str, int]] = []
    machine.server.trace = lambda script, args, _: calls.append((script, len(args)))
    World(machine, 7).run()
    once = calls.copy()
    calls.clear()
    World(machine, 7).run()
    assert calls == once


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_once_is_not_found_again(seed: int) -> None:
    assert broken(World(Machine(), seed)) is None
