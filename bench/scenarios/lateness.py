"""Lateness: messages spread over some seconds, beside bare timers that send the same."""

import random
import time

import msgspec

from bench.ceilings.poster import Order, post
from bench.create_load import Load, percentile
from bench.processes import Foreign
from bench.receiver import Arrivals, Receiver
from bench.report import Options, Row
from bench.scenarios.deliver import PATIENCE, create, lead
from bench.server import Target, server

COUNT = 0  # set by --seconds
BESIDE = "bare timers"
SETTINGS: dict[str, str] = {}  # the defaults
RATE = 200  # messages a second
FLOOR_SECONDS = 5  # duration of the floor, at the same rate
FLOOR_LEAD = 2.0  # seconds for the bare client to start


class Late(msgspec.Struct, frozen=True):
    """Arrival at the receiver − due."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    early: int
    lost: int
    duplicates: int

    def problems(self) -> list[str]:
        """Problems of the arrivals, in words."""
        found = {"lost": self.lost, "duplicates": self.duplicates, "early": self.early}
        return [f"{count} {name}" for name, count in found.items() if count]


class Run(msgspec.Struct, frozen=True):
    """Both, to one receiver."""

    ours: Late
    floor: Late
    created: Load
    foreign: float  # CPU of other processes, % of one core; with --url the server too


def run(options: Options, index: int) -> Run:
    """One run; in every second run the floor goes first."""
    foreign = Foreign()
    with Receiver() as receiver:
        floor = _floor(receiver) if index % 2 else None
        with server(options.url, options.token, SETTINGS) as target:
            ours, created = _ours(target, receiver, options)
        floor = floor or _floor(receiver)
    return Run(ours, floor, created, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.ours, run.floor) for run in runs]
    return [
        Row("p50, ms", [a.p50_ms for a, _ in sides], [b.p50_ms for _, b in sides]),
        Row("p95, ms", [a.p95_ms for a, _ in sides], [b.p95_ms for _, b in sides]),
        Row("p99, ms", [a.p99_ms for a, _ in sides], [b.p99_ms for _, b in sides]),
        Row("max, ms", [a.max_ms for a, _ in sides], [b.max_ms for _, b in sides]),
        Row("early", [float(a.early) for a, _ in sides]),
        Row("lost", [float(a.lost) for a, _ in sides]),
        Row("duplicates", [float(a.duplicates) for a, _ in sides]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    refused = [f"creates: statuses {run.created.statuses}"] * bool(run.created.refused)
    return run.ours.problems() + refused + [f"floor: {text}" for text in run.floor.problems()]


def _ours(target: Target, receiver: Receiver, options: Options) -> tuple[Late, Load]:
    due = spread(options.seconds, lead(options, options.seconds * RATE))
    created = create(target, receiver.hook, due)
    time.sleep(max(0, max(due) / 1000 - time.time()))
    return late(receiver.collect(len(due), PATIENCE), due), created


def _floor(receiver: Receiver) -> Late:
    due = spread(FLOOR_SECONDS, FLOOR_LEAD)
    post(Order(receiver.hook, len(due), due))
    return late(receiver.collect(len(due), 0), due)


def spread(seconds: int, ahead: float) -> list[int]:
    """Instants in ms, uniform over the seconds; the same pattern in every run."""
    first, chance = (time.time() + ahead) * 1000, random.Random(7)  # noqa: S311
    return [int(first + 1000 * seconds * chance.random()) for _ in range(seconds * RATE)]


def late(arrivals: Arrivals, due: list[int]) -> Late:
    """The lateness of arrivals; message n was due at due[n], ms."""
    found = arrivals.lateness_ms(due)
    return Late(
        percentile(found, 0.5),
        percentile(found, 0.95),
        percentile(found, 0.99),
        percentile(found, 1),
        early=sum(value < 0 for value in found),
        lost=arrivals.lost(len(due)),
        duplicates=arrivals.duplicates,
    )
