"""Batch: messages due tomorrow, 100 a request, beside bare script calls on the same store."""

import time

import msgspec

from bench.ceilings.pipeline import Piping, pipe
from bench.create_load import Load, load
from bench.fill_store import tomorrow
from bench.processes import Foreign
from bench.report import Options, Row
from bench.scenarios.create import HOOK
from bench.server import Target, server

COUNT = 100_000
BESIDE = "bare script calls"
SETTINGS: dict[str, str] = {}  # the defaults
TOGETHER = 100
CONNECTIONS = 8


class Run(msgspec.Struct, frozen=True):
    """Both within a minute of each other."""

    ours: Load
    ceiling: float  # messages/s: 100 a call, some calls under way, fsync always, no HTTP
    foreign: float  # CPU of other processes, % of one core; with --url the server too


def run(options: Options, index: int) -> Run:
    """One run; in every second run the ceiling goes first."""
    foreign = Foreign()
    piping = Piping(options.count, TOGETHER)
    ceiling = pipe(piping) if index % 2 else None
    with server(options.url, options.token, SETTINGS) as target:
        ours = _fill(target, options.count)
    return Run(ours, ceiling or pipe(piping), foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    ours = [run.ours for run in runs]
    cpus = [(made.cpu_s, sum(made.statuses.values())) for made in ours]
    found = [
        Row("messages/s", [made.rate for made in ours], [run.ceiling for run in runs]),
        Row("p50 of a request, ms", [made.p50_ms for made in ours]),
        Row("p99 of a request, ms", [made.p99_ms for made in ours]),
        Row("server CPU, s/1,000", [1000 * cpu[0] / count for cpu, count in cpus if cpu]),
        Row("store CPU, s/1,000", [1000 * cpu[1] / count for cpu, count in cpus if cpu]),
        Row("refused", [float(made.refused) for made in ours]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]
    return [row for row in found if row.ours]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    return [f"statuses {run.ours.statuses}"] * bool(run.ours.refused)


def _fill(target: Target, count: int) -> Load:
    prefix, first = f"bench-{time.time_ns():x}", tomorrow()
    due_ms = [first + n for n in range(count)]
    return load(target, prefix, HOOK, due_ms, connections=CONNECTIONS, together=TOGETHER)
