"""python -m tests.sim.dispatcher: schedules of the real dispatcher, then the planted mistakes."""

import argparse
import sys
import time
from collections import deque
from typing import Any, Final

from tests.sim.campaign import Catch
from tests.sim.dispatcher.campaign import Figures, broken, campaign, catch_all
from tests.sim.dispatcher.world import SimStore, World
from tests.sim.options import shown

SEEDS: Final = 2_000
BUDGET: Final = 1_000  # schedules in which each planted mistake has to be caught


def main() -> int:
    """0 if nothing was broken and each mistake was caught."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim.dispatcher", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="number of schedules")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="run one schedule, and show each call")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        return replay(chosen.seed)
    return run(chosen.first, chosen.seeds)


def run(first: int, seeds: int) -> int:
    """Run schedules and planted mistakes, and print both → 0 if all is well."""
    began = time.monotonic()
    figures = deque(campaign(first, seeds), maxlen=1)[0]
    show(figures, time.monotonic() - began)
    caught = catch_all(min(BUDGET, seeds))
    show_caught(caught)
    return int(bool(figures.failures) or any(one.reason is None for one in caught))


def replay(seed: int) -> int:
    """One schedule, call by call."""
    store = SimStore()
    world = World(store, seed)

    def show(script: str, args: list[bytes], reply: Any) -> None:
        print(f"{world.store_ms} {script} {args} → {reply}")

    print(f"seed={seed} {shown(world.options)}")
    store.server.trace = show
    reason = broken(world)
    print(reason or "nothing was broken")
    return int(reason is not None)


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


def show_caught(caught: list[Catch]) -> None:
    """Print how the planted mistakes fared."""
    for one in caught:
        if one.reason is None:
            print(f"  not caught: {one.name}")
    found = [one.schedules for one in caught if one.reason is not None]
    slowest = max(found, default=0)
    print(f"planted bugs caught {len(found)} of {len(caught)}, slowest after {slowest:,} schedules")


if __name__ == "__main__":
    sys.exit(main())
