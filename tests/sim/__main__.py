"""python -m tests.sim: many schedules of the shipped scripts, then the planted mistakes.

Then the same for the real dispatcher. Prints the figures, and writes them to .guarantee/sim.json.
"""

import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from tests.sim.campaign import Catch, Figures, campaign, catch_all
from tests.sim.command_line import parse, replay, show_caught
from tests.sim.dispatcher import __main__ as dispatcher
from tests.sim.store_on_model import StoreOnModel
from tests.sim.world import World

RESULT: Final = Path(".guarantee") / "sim.json"
SEEDS: Final = 100_000
SEEDS_A_DISPATCHER: Final = 50  # schedules of the scripts for one of the real dispatcher


def main() -> int:
    """0 if nothing was broken and each mistake was caught."""
    chosen = parse("python -m tests.sim", __doc__, SEEDS)
    if chosen.seed is not None:
        machine = StoreOnModel()
        world = World(machine, chosen.seed)
        return replay(chosen.seed, world, world.options, machine.server, lambda: world.now)
    began = time.monotonic()
    figures = run(chosen.first, chosen.seeds)
    seconds = time.monotonic() - began
    show(figures, seconds)
    caught = catch_all(chosen.seeds)
    show_caught(caught)
    write(figures, seconds, caught)
    unsound = bool(figures.failures) or any(one.reason is None for one in caught)
    return dispatcher.run(chosen.first, max(1, chosen.seeds // SEEDS_A_DISPATCHER)) or int(unsound)


def run(first: int, seeds: int) -> Figures:
    """Run all schedules, and show the progress on a terminal."""
    figures = Figures()
    for figures in campaign(first, seeds):
        if sys.stderr.isatty():
            print(f"\r{figures.schedules:,} of {seeds:,}", end="\r", file=sys.stderr)
    return figures


def show(figures: Figures, seconds: float) -> None:
    """Print the figures of the schedules."""
    cores = os.cpu_count() or 1
    rate = figures.schedules / seconds
    print(
        f"{figures.schedules:,} schedules of the shipped scripts in {seconds:.0f} s, "
        f"{rate:,.0f} a second on {cores} cores"
    )
    print(f"{figures.calls:,} calls, {figures.messages:,} messages, {figures.sends:,} requests")
    print(", ".join(f"{count:,} {name}" for name, count in sorted(figures.events.items())))
    print(
        f"{len(figures.failures)} broke a promise (lost, ghost, early, sent twice); "
        f"{figures.repeats:,} requests were made again, "
        f"≤ {figures.exposed:,} that a crash, stop or partition had left open"
    )
    for failure in figures.failures[:10]:
        print(f"  make sim SEED={failure.seed}  # {failure.reason.splitlines()[0]}")
        print(f"    {failure.options}")


def write(figures: Figures, seconds: float, caught: list[Catch]) -> None:
    """Write the figures for the table of tests/guarantee.py."""
    found = [one.schedules for one in caught if one.reason is not None]
    document = msgspec.structs.asdict(figures) | {
        "seconds": round(seconds, 1),
        "planted": len(caught),
        "caught": len(found),
        "slowest_catch": max(found, default=0),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
