"""Hang: as many messages to hosts that never answer as to a fast one, all due at once.

One host, and then four, among which the same number is divided.

The figures are those of the fast host, beside the same without the other.
"""

import time
from contextlib import ExitStack

import msgspec

from bench.peers.peer import peer
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row
from bench.scenarios import deliver
from bench.scenarios.deliver import PATIENCE
from bench.scenarios.lateness import Late, late
from bench.server import fresh

COUNT = 2_000  # messages to the fast host, and to all hosts that hang together
SEVERAL = 4  # hosts that hang
BESIDE = "fast host alone"
# Else the defaults; at the end nobody waits for requests to hosts that hang.
SETTINGS = {"SHUTDOWN_GRACE": "1s"}


class Run(msgspec.Struct, frozen=True):
    """The arrivals at the fast host."""

    beside_hanging: Late
    beside_several: Late
    alone: Late
    peer: Late | None  # beside the host that hangs
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, index: int) -> Run:
    """One run; in every second run the fast host goes first."""
    foreign = Foreign()
    with ExitStack() as stack:
        fast = stack.enter_context(Receiver())
        several = [stack.enter_context(Receiver("hang")) for _ in range(SEVERAL)]
        hanging = several[0]
        alone = _fast([fast], options) if index % 2 else None
        both = _fast([hanging, fast], options)
        beside_several = _fast([*several, fast], options)
        alone = alone or _fast([fast], options)
        theirs = _peer(options.peer, [hanging, fast], options) if options.peer else None
    return Run(both, beside_several, alone, theirs, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    names = {
        "p50, ms": "p50_ms",
        "p99, ms": "p99_ms",
        "max, ms": "max_ms",
        "early": "early",
        "lost or not within the patience": "lost",
        "duplicates": "duplicates",
    }
    return [
        *(
            Row(
                name,
                [float(getattr(run.beside_hanging, field)) for run in runs],
                [float(getattr(run.alone, field)) for run in runs],
                [float(getattr(run.peer, field)) for run in runs if run.peer],
            )
            for name, field in names.items()
        ),
        *(
            Row(
                f"{name}, beside {SEVERAL} hosts that hang",
                [float(getattr(run.beside_several, field)) for run in runs],
                [float(getattr(run.alone, field)) for run in runs],
            )
            for name, field in names.items()
        ),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


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
