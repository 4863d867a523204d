"""The printed tables, and the machine that they were measured on."""

import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from statistics import median

import msgspec

from scheduler_api import __version__
from scheduler_api.store.embedded.launch import find_binary

PACKAGES = ("aiohttp", "uvloop", "uvicorn", "starlette", "redis", "hiredis", "msgspec")
NEVER = "never"  # cell of an infinite time: of a message that was lost


class Options(msgspec.Struct, frozen=True):
    """The options of the command line."""

    url: str | None
    token: str
    runs: int
    count: int  # messages in a run
    seconds: int  # duration of lateness and idle
    lead: float | None  # seconds from the first create to the first due instant
    peers: tuple[str, ...]  # other schedulers to measure in the same runs


class Row(msgspec.Struct, frozen=True):
    """A figure over all runs: ours with default settings, and those beside it in the same runs."""

    name: str
    ours: list[float]
    beside: list[float] = []  # what it is compared with, usually a ceiling
    others: dict[str, list[float]] = {}  # ours with other settings, by these settings
    peers: dict[str, list[float]] = {}  # other schedulers, by name

    def cells(self, columns: Mapping[str, list[float]]) -> list[str]:
        """The cells as text; ratios are taken run by run."""
        found = [self.name, _spread(self.ours)]
        for column in columns.values():
            pairs = zip(self.ours, column, strict=False)
            ratios = [ours / theirs for ours, theirs in pairs if theirs and isfinite(theirs)]
            found += [_spread(column), _spread(ratios, ".2f")]
        return found


def figures(sides: Iterable[object], field: str) -> list[float]:
    """One field of each run, without those that have none."""
    found = [getattr(side, field) for side in sides]
    return [float(value) for value in found if value is not None]


def figures_by_name(runs: Sequence[Mapping[str, object]], field: str) -> dict[str, list[float]]:
    """The same for each name; every run has the same names."""
    return {name: figures([run[name] for run in runs], field) for name in runs[0]}


def table(title: str, rows: list[Row], beside: str) -> str:
    """A Markdown table, and one beside the peers; cells: median [minimum–maximum]."""
    found = [_table(title, [(row, {beside: row.beside} | row.others) for row in rows])]
    compared = [(row, row.peers) for row in rows if row.peers]
    return "\n\n".join(found + [_table(title, compared)] * bool(compared))


def _table(title: str, rows: list[tuple[Row, dict[str, list[float]]]]) -> str:
    names = list(dict.fromkeys(name for _, columns in rows for name in columns))
    lines = [[title, "ours", *(head for name in names for head in (name, "ratio"))]]
    lines += [row.cells({name: columns.get(name, []) for name in names}) for row, columns in rows]
    shown = [column for column in zip(*lines, strict=True) if any(column[1:])]
    return "\n".join(map(_line_of, zip(*map(_padded, shown), strict=True)))


def _padded(column: tuple[str, ...]) -> list[str]:
    width = max(map(len, column))
    head, *cells = (cell.ljust(width) for cell in column)
    return [head, "-" * width, *cells]


def _line_of(cells: tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float], form: str = "") -> str:
    if not values:
        return ""
    middle, least, most = (
        format(value, form or _form(value)) if isfinite(value) else NEVER
        for value in (median(values), min(values), max(values))
    )
    return middle if len(values) == 1 or least == most else f"{middle} [{least}–{most}]"


def _form(value: float) -> str:
    if value == int(value) or abs(value) >= 100:
        return ",.0f"
    return ".1f" if abs(value) >= 10 else ".3f" if abs(value) < 1 else ".2f"


def surroundings() -> dict[str, str]:
    """The machine and the versions."""
    cpu = _line("/proc/cpuinfo", "model name")
    memory = int(_line("/proc/meminfo", "MemTotal").split()[0]) / 1024**2
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    command = [str(find_binary()), "--version"]
    store = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {
        "scheduler-api": __version__,
        "machine": f"{os.cpu_count()} cores, {cpu}, {memory:.0f} GiB, {platform.platform()}",
        "load before": load,
        "python": platform.python_version(),
        "store": store.strip(),
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
    }


def _line(path: str, name: str) -> str:
    lines = Path(path).read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "?")
