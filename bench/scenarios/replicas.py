"""Replicas: messages due soon, created directly in the store, beside created at a replica.

Two replicas share an external store. They learn of the first kind only by the store's announcement.
"""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bench.create_due_soon import Order, create_soon
from bench.external_store import ExternalStore, external_store
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row
from bench.scenarios.deliver import PATIENCE
from bench.scenarios.lateness import Late, late
from bench.server import Target, serving

COUNT = 1_000
BESIDE = "created there"
SETTINGS: dict[str, str] = {}  # the defaults
REPLICAS = 2


class Run(msgspec.Struct, frozen=True):
    """Both, with the same replicas and to one receiver."""

    elsewhere: Late
    there: Late
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, index: int) -> Run:
    """One run; in every second run the other kind goes first."""
    foreign = Foreign()
    with (
        Receiver() as receiver,
        external_store() as store,
        replicas(store, REPLICAS, SETTINGS) as targets,
    ):
        order = Order(receiver.hook, "bench-elsewhere", options.count, store.address)
        at_one = msgspec.structs.replace(order, prefix="bench-there", target=targets[0])
        there = _late(at_one, receiver) if index % 2 else None
        elsewhere = _late(order, receiver)
        there = there or _late(at_one, receiver)
    return Run(elsewhere, there, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.elsewhere, run.there) for run in runs]
    return [
        Row("p50, ms", [a.p50_ms for a, _ in sides], [b.p50_ms for _, b in sides]),
        Row("p99, ms", [a.p99_ms for a, _ in sides], [b.p99_ms for _, b in sides]),
        Row("max, ms", [a.max_ms for a, _ in sides], [b.max_ms for _, b in sides]),
        Row("early", [float(a.early + b.early) for a, b in sides]),
        Row("lost", [float(a.lost + b.lost) for a, b in sides]),
        Row("duplicates", [float(a.duplicates + b.duplicates) for a, b in sides]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {"elsewhere": run.elsewhere, "there": run.there}
    return [f"{name}: {text}" for name, side in sides.items() for text in side.problems()]


@contextmanager
def replicas(store: ExternalStore, count: int, settings: dict[str, str]) -> Iterator[list[Target]]:
    """Servers on one store, each in its own folder."""
    given = {"REDIS_URL": store.address} | settings
    with ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            for _ in range(count)
        ]
        yield [stack.enter_context(serving(folder, given)) for folder in folders]


def _late(order: Order, receiver: Receiver) -> Late:
    due_ms = create_soon(order)
    return late(receiver.collect(order.count, PATIENCE), due_ms)
