"""Lateness: messages spread over some seconds, beside bare timers that send the same."""

import random
import time
from functools import partial
from math import inf

import msgspec

from bench.ceilings.poster import Order, post
from bench.create_load import Load, percentile
from bench.peers.peer import peer
from bench.processes import Foreign
from bench.receiver import Arrivals, Receiver
from bench.report import Options, Row, figures, figures_by_name
from bench.scenarios.deliver import PATIENCE, create, lead
from bench.server import server
from bench.turns import Sides, in_turn

COUNT = 0  # set by --seconds
BESIDE = "bare timers"
SETTINGS: dict[str, str] = {}  # the defaults
OURS, FLOOR = "ours", "floor"  # sides of a run, next to the peers
RATE = 200  # messages a second
FLOOR_SECONDS = 5  # duration of the floor, at the same rate
FLOOR_LEAD = 2.0  # seconds for the bare client to start


class Late(msgspec.Struct, frozen=True):
    """Arrival at the receiver − due; of a message that was lost: infinite."""

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
    """All, to one receiver."""

    ours: Late
    floor: Late
    peers: dict[str, Late]
    created: Load
    foreign: float  # CPU of other processes, % of one core; with --url the server too


# Row → field.
FIGURES = {
    "p50, ms": "p50_ms",
    "p95, ms": "p95_ms",
    "p99, ms": "p99_ms",
    "max, ms": "max_ms",
    "early": "early",
    "lost": "lost",
    "duplicates": "duplicates",
}
TIMES = ("p50_ms", "p95_ms", "p99_ms", "max_ms")  # fields that the floor has too


def run(options: Options, index: int) -> Run:
    """One run; in every second run the order is reversed."""
    foreign = Foreign()
    with Receiver() as receiver:
        sides: Sides = {
            OURS: lambda: _ours(receiver, options),
            FLOOR: lambda: _floor(receiver),
            **{name: partial(_peer, name, receiver, options) for name in options.peers},
        }
        found = in_turn(index, sides)
    ours, created = found[OURS]
    peers = {name: found[name] for name in options.peers}
    return Run(ours, found[FLOOR], peers, created, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    ours, floor, peers = zip(*((run.ours, run.floor, run.peers) for run in runs), strict=True)
    found = [
        Row(
            name,
            figures(ours, field),
            figures(floor, field) if field in TIMES else [],
            peers=figures_by_name(peers, field),
        )
        for name, field in FIGURES.items()
    ]
    return [*found, Row("foreign CPU, %", [run.foreign for run in runs])]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    refused = [f"creates: statuses {run.created.statuses}"] * bool(run.created.refused)
    return run.ours.problems() + refused + [f"floor: {text}" for text in run.floor.problems()]


def _ours(receiver: Receiver, options: Options) -> tuple[Late, Load]:
    with server(options.url, options.token, SETTINGS) as target:
        due = _spread(options)
        created = create(target, receiver.hook, due)
        return _late(receiver, due), created


def _peer(name: str, receiver: Receiver, options: Options) -> Late:
    with peer(name) as theirs, theirs.working():
        due = _spread(options)
        theirs.create(receiver.hook, due)
        return _late(receiver, due)


def _spread(options: Options) -> list[int]:
    return spread(options.seconds, lead(options, options.seconds * RATE))


def _late(receiver: Receiver, due: list[int]) -> Late:
    time.sleep(max(0, max(due) / 1000 - time.time()))
    return late(receiver.collect(len(due), PATIENCE), due)


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
    lost = arrivals.lost(len(due))
    found = arrivals.lateness_ms(due) + [inf] * lost
    return Late(
        percentile(found, 0.5),
        percentile(found, 0.95),
        percentile(found, 0.99),
        percentile(found, 1),
        early=sum(value < 0 for value in found),
        lost=lost,
        duplicates=arrivals.duplicates,
    )
