"""Lateness: messages spread over some seconds, beside bare timers that send the same."""

import random
import time

import msgspec

from bench.ceilings.poster import Order, post
from bench.load import Load, percentile
from bench.processes import Foreign
from bench.report import Options, Row
from bench.scenarios.deliver import PATIENCE, create, lead
from bench.server import Target, server
from bench.sink import Arrivals, Sink

SETTINGS: dict[str, str] = {}  # nothing but the defaults
RATE = 200  # messages a second
FLOOR_SECONDS = 5  # at the same rate
FLOOR_LEAD = 2.0  # seconds that the bare client has to get ready


class Late(msgspec.Struct, frozen=True):
    """Arrival at the sink − due."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    early: int
    lost: int
    duplicates: int


class Run(msgspec.Struct, frozen=True):
    """Both, to one sink."""

    ours: Late
    floor: Late
    created: Load
    foreign: float  # CPU of others meanwhile, % of one core; with --url also the server's


def run(options: Options, index: int) -> Run:
    """One run; every second time the floor goes first."""
    foreign = Foreign()
    with Sink() as sink:
        floor = _floor(sink) if index % 2 else None
        with server(options.url, options.token, SETTINGS) as target:
            ours, created = _ours(target, sink, options)
        floor = floor or _floor(sink)
    return Run(ours, floor, created, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The table."""
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
    """Why the figures of this run do not count."""
    wrong = {
        f"{run.ours.lost} lost": run.ours.lost,
        f"{run.ours.duplicates} duplicates": run.ours.duplicates,
        f"{run.ours.early} early": run.ours.early,
        f"creates: statuses {run.created.statuses}": run.created.refused,
        f"floor: {run.floor.lost} lost": run.floor.lost,
        f"floor: {run.floor.early} early": run.floor.early,
    }
    return [text for text, count in wrong.items() if count]


def _ours(target: Target, sink: Sink, options: Options) -> tuple[Late, Load]:
    due = _spread(options.seconds, lead(options, options.seconds * RATE))
    created = create(target, sink.hook, due)
    time.sleep(max(0, max(due) / 1000 - time.time()))
    return _late(sink.collect(len(due), PATIENCE), due), created


def _floor(sink: Sink) -> Late:
    due = _spread(FLOOR_SECONDS, FLOOR_LEAD)
    post(Order(sink.hook, len(due), due))
    return _late(sink.collect(len(due), 0), due)


def _spread(seconds: int, ahead: float) -> list[int]:
    """Instants in ms, uniform over the seconds; the same pattern in every run."""
    first, chance = (time.time() + ahead) * 1000, random.Random(7)  # noqa: S311
    return [int(first + 1000 * seconds * chance.random()) for _ in range(seconds * RATE)]


def _late(arrivals: Arrivals, due: list[int]) -> Late:
    late = arrivals.lateness_ms(due)
    return Late(
        percentile(late, 0.5),
        percentile(late, 0.95),
        percentile(late, 0.99),
        percentile(late, 1),
        early=sum(value < 0 for value in late),
        lost=arrivals.lost(len(due)),
        duplicates=arrivals.duplicates,
    )
