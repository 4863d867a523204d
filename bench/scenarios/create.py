"""Create: messages due tomorrow over 64 connections, beside a bare handler on the same store."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.create_load import Load, load
from bench.processes import ROOT, Foreign
from bench.report import Options, Row
from bench.server import HOST, TOKEN, Target, free_port, server, started

COUNT = 20_000
BESIDE = "ceiling"
SETTINGS: dict[str, str] = {}  # the defaults
HOOK = f"http://{HOST}:2/hook"  # never called, as the messages are due tomorrow
DAY_MS = 24 * 3600 * 1000


class Run(msgspec.Struct, frozen=True):
    """All three within a minute of each other."""

    ours: Load
    ceiling: Load  # one grouped script call a loop turn, fsync always
    bare: Load  # no store at all
    foreign: float  # CPU of other processes, % of one core; with --url the server too


def run(options: Options, index: int) -> Run:
    """One run; in every second run the ceiling goes first."""
    foreign = Foreign()
    ceiling = _ceiling(options, with_store=True) if index % 2 else None
    with server(options.url, options.token, SETTINGS) as target:
        ours = _fill(target, options)
    ceiling = ceiling or _ceiling(options, with_store=True)
    bare = _ceiling(options, with_store=False)
    return Run(ours, ceiling, bare, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.ours, run.ceiling) for run in runs]
    found = [
        Row("messages/s", [a.rate for a, _ in sides], [b.rate for _, b in sides]),
        Row("p50, ms", [a.p50_ms for a, _ in sides], [b.p50_ms for _, b in sides]),
        Row("p99, ms", [a.p99_ms for a, _ in sides], [b.p99_ms for _, b in sides]),
        _cpu("server CPU, s/1,000", runs, 0),
        _cpu("store CPU, s/1,000", runs, 1),
        Row(
            "messages/s beside a handler without a store",
            [run.ours.rate for run in runs],
            [run.bare.rate for run in runs],
        ),
        Row("refused", [float(run.ours.refused) for run in runs]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]
    return [row for row in found if row.ours]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {"ours": run.ours, "ceiling": run.ceiling, "bare": run.bare}
    return [f"{name}: statuses {made.statuses}" for name, made in sides.items() if made.refused]


def _cpu(name: str, runs: list[Run], part: int) -> Row:
    def each(made: Load) -> list[float]:
        return [1000 * made.cpu_s[part] / sum(made.statuses.values())] if made.cpu_s else []

    ours = [cpu for run in runs for cpu in each(run.ours)]
    return Row(name, ours, [cpu for run in runs for cpu in each(run.ceiling)])


def _fill(target: Target, options: Options) -> Load:
    first = time.time_ns() // 1_000_000 + DAY_MS
    due = [first + n for n in range(options.count)]
    return load(target, f"bench-{time.time_ns():x}", HOOK, due)


def _ceiling(options: Options, *, with_store: bool) -> Load:
    with _handler(with_store) as target:
        return _fill(target, options)


@contextmanager
def _handler(with_store: bool) -> Iterator[Target]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        command = [sys.executable, "-m", "bench.ceilings.ingest", str(port), TOKEN]
        command += [f"{folder}/data"] if with_store else []
        found_by = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
        with started(command, port, "/ready", Path(folder), found_by) as pid:
            yield Target(HOST, port, TOKEN, pid)
