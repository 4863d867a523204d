"""Some schedules of the simulation; `make sim` runs many more."""

import random

from tests.sim.campaign import simulate
from tests.sim.options import draw, shown
from tests.sim.store_on_model import StoreOnModel
from tests.sim.world import World

SCHEDULES = 500


def test_simulate_breaks_no_promise() -> None:
    figures = simulate(0, SCHEDULES)
    assert figures.failures == []
    assert figures.schedules == SCHEDULES
    assert figures.repeats <= figures.exposed


def test_simulate_meets_every_fault() -> None:
    events = simulate(SCHEDULES, 200).events
    assert events.keys() == {
        *("crashes", "stops", "pauses", "partitions"),
        *("replies lost", "store restarts", "outages", "clock steps"),
        *("unreachable destinations", "repairs"),
    }


def test_world_of_a_seed_is_always_the_same_schedule() -> None:
    machine = StoreOnModel()
    calls: list[tuple[str, int]] = []
    machine.server.trace = lambda script, args, _: calls.append((script, len(args)))
    World(machine, 7).run()
    once = calls.copy()
    calls.clear()
    World(machine, 7).run()
    assert calls == once


def test_draw_gives_a_seed_the_same_options_which_are_shown_whole() -> None:
    options = World(StoreOnModel(), 7).options
    assert options == draw(random.Random(7))  # noqa: S311
    names = [part.partition("=")[0] for part in shown(options).split() if "=" in part]
    assert names == list(type(options).__struct_fields__)
