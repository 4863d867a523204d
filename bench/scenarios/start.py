"""Start: from the command until the server is ready, the store running, beside 1,000 pending."""

import time

import msgspec

from bench.external_store import ExternalStore, external_store
from bench.fill_store import fill, tomorrow
from bench.processes import Foreign
from bench.report import Options, Row
from bench.scenarios.create import HOOK
from bench.scenarios.replicas import replicas

COUNT = 1_000_000
FEW = 1_000
BESIDE = f"{FEW:,} pending"
SETTINGS: dict[str, str] = {}  # the defaults


class Started(msgspec.Struct, frozen=True):
    """One start."""

    seconds: float  # from the command to the first 200 of /health/ready
    commands: (
        int  # of the store meanwhile, those inside scripts included; few, as nothing is scanned
    )


class Run(msgspec.Struct, frozen=True):
    """Both, one after the other in the same store."""

    many: Started
    few: Started
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, _: int) -> Run:
    """One run."""
    foreign = Foreign()
    due_ms = tomorrow()
    with external_store() as store:
        fill(store, "bench", HOOK, due_ms, FEW)
        few = _start(store)
        fill(store, "bench", HOOK, due_ms, max(1, options.count - FEW), FEW)
        many = _start(store)
    return Run(many, few, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.many, run.few) for run in runs]
    return [
        Row("ready after, s", [a.seconds for a, _ in sides], [b.seconds for _, b in sides]),
        Row(
            "store commands until then",
            [float(a.commands) for a, _ in sides],
            [float(b.commands) for _, b in sides],
        ),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(_: Run) -> list[str]:
    """Problems of the run: there are none, as a failed start raises."""
    return []


def _start(store: ExternalStore) -> Started:
    before, began = store.info(), time.perf_counter()
    with replicas(store, 1, SETTINGS):
        seconds, after = time.perf_counter() - began, store.info()
    commands = after["total_commands_processed"] - before["total_commands_processed"]
    return Started(round(seconds, 3), commands)
