"""Hang: as many messages to hosts that never answer as to a fast one, all due at once.

One host, and then four, among which the same number is divided.

The figures are those of the fast host, beside the same without the other.
"""

import time
from contextlib import ExitStack
from functools import partial

import msgspec

from bench.peers.peer import peer
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row, figures, figures_by_name
from bench.scenarios import deliver
from bench.scenarios.deliver import PATIENCE
from bench.scenarios.lateness import Late, late
from bench.server import fresh
from bench.turns import Sides, in_turn

COUNT = 2_000  # messages to the fast host, and to all hosts that hang together
SEVERAL = 4  # hosts that hang
BESIDE = "fast host alone"
HANGING, HANGING_SEVERAL = "hanging", "several"  # sides of a run, next to BESIDE and the peers
# Else the defaults; at the end nobody waits for requests to hosts that hang.
SETTINGS = {"SHUTDOWN_GRACE": "1s"}


class Run(msgspec.Struct, frozen=True):
    """The arrivals at the fast host."""

    beside_hanging: Late
    beside_several: Late
    alone: Late
    peers: dict[str, Late]  # beside the host that hangs
    foreign: float  # CPU of other processes, % of one core


# Row → field.
FIGURES = {
    "p50, ms": "p50_ms",
    "p99, ms": "p99_ms",
    "max, ms": "max_ms",
    "early": "early",
    "lost or not within the patience": "lost",
    "duplicates": "duplicates",
}


def run(options: Options, index: int) -> Run:
    """One run; in every second run the order is reversed."""
    foreign = Foreign()
    with ExitStack() as stack:
        fast = stack.enter_context(Receiver())
        several = [stack.enter_context(Receiver("hang")) for _ in range(SEVERAL)]
        both = [several[0], fast]
        sides: Sides = {
            HANGING: lambda: _fast(both, options),
            HANGING_SEVERAL: lambda: _fast([*several, fast], options),
            BESIDE: lambda: _fast([fast], options),
            **{name: partial(_peer, name, both, options) for name in options.peers},
        }
        found = in_turn(index, sides)
    peers = {name: found[name] for name in options.peers}
    return Run(found[HANGING], found[HANGING_SEVERAL], found[BESIDE], peers, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    alone = [run.alone for run in runs]
    peers = [run.peers for run in runs]
    beside_hanging = [
        Row(
            name,
            figures([run.beside_hanging for run in runs], field),
            figures(alone, field),
            peers=figures_by_name(peers, field),
        )
        for name, field in FIGURES.items()
    ]
    beside_several = [
        Row(
            f"{name}, beside {SEVERAL} hosts that hang",
            figures([run.beside_several for run in runs], field),
            figures(alone, field),
        )
        for name, field in FIGURES.items()
    ]
    foreign = Row("foreign CPU, %", [run.foreign for run in runs])
    return [*beside_hanging, *beside_several, foreign]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {
        "beside the host that hangs": run.beside_hanging,
        f"beside {SEVERAL} hosts that hang": run.beside_several,
        "alone": run.alone,
    }
    return [f"{name}: {text}" for name, side in sides.items() for text in side.problems()]


def _fast(receivers: list[Receiver], options: Options) -> Late:
    """The last receiver is the fast one; the messages of the others have smaller ids."""
    with fresh(SETTINGS) as target:
        due_ms = _due_ms(options, min(2, len(receivers)))
        *hanging, fast = receivers
        for receiver in hanging:
            deliver.create(target, receiver.hook, due_ms[: len(due_ms) // len(hanging)])
        deliver.create(target, fast.hook, due_ms)
        return late(receivers[-1].collect(options.count, PATIENCE), due_ms)


def _peer(name: str, receivers: list[Receiver], options: Options) -> Late:
    with peer(name) as theirs, theirs.working():
        due_ms = _due_ms(options, len(receivers))
        for receiver in receivers:
            theirs.create(receiver.hook, due_ms)
        time.sleep(max(0, max(due_ms) / 1000 - time.time()))
        return late(receivers[-1].collect(options.count, 2 * PATIENCE), due_ms)


def _due_ms(options: Options, hosts: int) -> list[int]:
    due = int((time.time() + hosts * deliver.lead(options, options.count)) * 1000)
    return [due] * options.count
