"""Create: messages due tomorrow over 64 connections, beside a bare handler on the same store."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import msgspec

from bench.create_load import Load, load
from bench.processes import ROOT, Foreign
from bench.report import Options, Row, figures, figures_by_name
from bench.server import HOST, TOKEN, Target, free_port, fresh, server, started
from bench.turns import Sides, in_turn

COUNT = 20_000
BESIDE = "ceiling"
SETTINGS: dict[str, str] = {}  # the defaults
# Column → settings, each for a new server in the same run.
OTHERS = {"LOG_LEVEL=WARNING": {"LOG_LEVEL": "WARNING"}}  # else a line a message
OURS, BARE = "ours", "bare"  # sides of a run, next to BESIDE and OTHERS
HOOK = f"http://{HOST}:2/hook"  # never called, as the messages are due tomorrow
DAY_MS = 24 * 3600 * 1000


class Run(msgspec.Struct, frozen=True):
    """All within some minutes of each other."""

    ours: Load
    others: dict[str, Load]
    ceiling: Load  # one grouped script call a loop turn, fsync always
    bare: Load  # no store at all
    foreign: float  # CPU of other processes, % of one core; with --url the server too


# Row → field.
FIGURES = {"messages/s": "rate", "p50, ms": "p50_ms", "p99, ms": "p99_ms"}


def run(options: Options, index: int) -> Run:
    """One run; in every second run the order is reversed."""
    foreign = Foreign()
    others = {} if options.url else OTHERS
    sides: Sides = {
        OURS: lambda: _ours(options),
        **{name: partial(_other, others[name], options) for name in others},
        BESIDE: lambda: _ceiling(options, with_store=True),
        BARE: lambda: _ceiling(options, with_store=False),
    }
    found = in_turn(index, sides)
    return Run(
        found[OURS],
        {name: found[name] for name in others},
        found[BESIDE],
        found[BARE],
        foreign.percent(),
    )


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    ours, ceiling = [run.ours for run in runs], [run.ceiling for run in runs]
    others = [run.others for run in runs]
    found = [
        *(
            Row(name, figures(ours, it), figures(ceiling, it), figures_by_name(others, it))
            for name, it in FIGURES.items()
        ),
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
    sides = {OURS: run.ours, **run.others, BESIDE: run.ceiling, BARE: run.bare}
    return [f"{name}: statuses {made.statuses}" for name, made in sides.items() if made.refused]


def _cpu(name: str, runs: list[Run], part: int) -> Row:
    def each(sides: list[Load]) -> list[float]:
        return [
            1000 * made.cpu_s[part] / sum(made.statuses.values()) for made in sides if made.cpu_s
        ]

    return Row(
        name,
        each([run.ours for run in runs]),
        each([run.ceiling for run in runs]),
        {other: each([run.others[other] for run in runs]) for other in runs[0].others},
    )


def _ours(options: Options) -> Load:
    with server(options.url, options.token, SETTINGS) as target:
        return _fill(target, options)


def _other(settings: dict[str, str], options: Options) -> Load:
    with fresh(settings) as target:
        return _fill(target, options)


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
