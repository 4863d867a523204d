"""What the commands of both simulations share: arguments, a schedule call by call, catches."""

import argparse
from collections.abc import Callable
from typing import Any

import msgspec

from tests.sim.campaign import Catch, Schedule, broken
from tests.sim.model import Server
from tests.sim.options import shown


def parse(prog: str, description: str | None, seeds: int) -> argparse.Namespace:
    """The arguments `seeds` (this many by default), `first` and `seed`."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--seeds", type=int, default=seeds, help="number of schedules")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="run one schedule, and show each call")
    return parser.parse_args()


def replay(
    seed: int,
    world: Schedule,
    options: msgspec.Struct,
    server: Server,
    clock: Callable[[], int],  # ms, printed with each call
) -> int:
    """Run one schedule and print each call → 0 if nothing was broken."""

    def show(script: str, args: list[bytes], reply: Any) -> None:
        print(f"{clock()} {script} {args} → {reply}")

    print(f"seed={seed} {shown(options)}")
    server.trace = show
    reason = broken(world)
    print(reason or "nothing was broken")
    return int(reason is not None)


def show_caught(caught: list[Catch]) -> None:
    """Print which planted mistakes were caught."""
    for one in caught:
        if one.reason is None:
            print(f"  not caught: {one.name}")
    found = [one.schedules for one in caught if one.reason is not None]
    slowest = max(found, default=0)
    print(f"planted bugs caught {len(found)} of {len(caught)}, slowest after {slowest:,} schedules")
