"""python -m tests.sim.dispatcher: schedules of the real dispatcher, then the planted mistakes."""

import sys
import time
from collections import deque
from typing import Final

from tests.sim.command_line import parse, replay, show_caught
from tests.sim.dispatcher.campaign import Figures, campaign, catch_all
from tests.sim.dispatcher.world import SimStore, World

SEEDS: Final = 2_000
BUDGET: Final = 1_000  # schedules in which each planted mistake has to be caught


def main() -> int:
    """0 if nothing was broken and each mistake was caught."""
    chosen = parse("python -m tests.sim.dispatcher", __doc__, SEEDS)
    if chosen.seed is not None:
        store = SimStore()
        world = World(store, chosen.seed)
        return replay(chosen.seed, world, world.options, store.server, lambda: world.store_ms)
    return run(chosen.first, chosen.seeds)


def run(first: int, seeds: int) -> int:
    """Run schedules and planted mistakes, and print both → 0 if all is well."""
    began = time.monotonic()
    figures = deque(campaign(first, seeds), maxlen=1)[0]
    show(figures, time.monotonic() - began)
    caught = catch_all(min(BUDGET, seeds))
    show_caught(caught)
    return int(bool(figures.failures) or any(one.reason is None for one in caught))


def show(figures: Figures, seconds: float) -> None:
    """Print the figures."""
    print(
        f"{figures.schedules:,} schedules of the dispatcher in {seconds:.0f} s, "
        f"{figures.schedules / seconds:,.0f} a second; {figures.sends:,} requests"
    )
    print(", ".join(f"{count:,} {name}" for name, count in sorted(figures.events.items())))
    print(f"{len(figures.failures)} broke a promise")
    for failure in figures.failures[:10]:
        print(f"  python -m tests.sim.dispatcher --seed {failure.seed}  # {failure.reason}")
        print(f"    {failure.options}")


if __name__ == "__main__":
    sys.exit(main())
