"""Backlog: many overdue messages for a dead host, and new ones for another host.

The figures are those of the fresh ones, beside the same without the backlog.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from bench.external_store import external_store
from bench.fill_store import fill
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row
from bench.scenarios import deliver
from bench.scenarios.deliver import PATIENCE
from bench.scenarios.lateness import Late, late
from bench.scenarios.replicas import replicas
from bench.server import HOST

COUNT = 900_000  # overdue messages
BESIDE = "no backlog"
SETTINGS: dict[str, str] = {}  # the defaults
FRESH = 1_000
GAP_MS = 10  # between two new messages
OVERDUE_MS = 3_600_000
AHEAD = 10.0  # seconds for creating the new messages, while the overdue ones are tried


class Run(msgspec.Struct, frozen=True):
    """The arrivals of the new messages."""

    behind: Late
    alone: Late
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, index: int) -> Run:
    """One run; in every second run that without a backlog goes first."""
    foreign = Foreign()
    with Receiver() as receiver:
        alone = _fresh(receiver, 0, options) if index % 2 else None
        behind = _fresh(receiver, options.count, options)
        alone = alone or _fresh(receiver, 0, options)
    return Run(behind, alone, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.behind, run.alone) for run in runs]
    return [
        Row("p50, ms", [a.p50_ms for a, _ in sides], [b.p50_ms for _, b in sides]),
        Row("p99, ms", [a.p99_ms for a, _ in sides], [b.p99_ms for _, b in sides]),
        Row("max, ms", [a.max_ms for a, _ in sides], [b.max_ms for _, b in sides]),
        Row("early", [float(a.early) for a, _ in sides]),
        Row("lost", [float(a.lost) for a, _ in sides]),
        Row("duplicates", [float(a.duplicates) for a, _ in sides]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {"behind the backlog": run.behind, "alone": run.alone}
    return [f"{name}: {text}" for name, side in sides.items() for text in side.problems()]


def _fresh(receiver: Receiver, overdue: int, options: Options) -> Late:
    with external_store() as store, _dead_hook() as dead:
        if overdue:
            first = time.time_ns() // 1_000_000 - OVERDUE_MS - overdue
            fill(store, "bench-overdue", dead, first, overdue)
        with replicas(store, 1, SETTINGS) as [target]:
            start = int((time.time() + (options.lead or AHEAD)) * 1000)
            due_ms = [start + GAP_MS * n for n in range(FRESH)]
            deliver.create(target, receiver.hook, due_ms)
            time.sleep(max(0, due_ms[-1] / 1000 - time.time()))
            return late(receiver.collect(FRESH, PATIENCE), due_ms)


@contextmanager
def _dead_hook() -> Iterator[str]:
    """A URL that refuses connections: its port is bound, and nobody listens."""
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        yield f"http://{HOST}:{taken.getsockname()[1]}/hook"
