"""Idle: nothing is due today, beside the same with 1,000 pending, in the same seconds."""

import time

import msgspec

from bench.external_store import ExternalStore, external_store
from bench.fill_store import fill, tomorrow
from bench.processes import Foreign, cpu_seconds, resident_mib
from bench.report import Options, Row
from bench.scenarios.create import HOOK
from bench.scenarios.replicas import replicas

COUNT = 100_000
FEW = 1_000
BESIDE = f"{FEW:,} pending"
SETTINGS: dict[str, str] = {}  # the defaults
SETTLING = 3.0  # seconds from the start of a server until it is idle


class Rest(msgspec.Struct, frozen=True):
    """The cost of an idle server."""

    cpu: float  # % of one core
    store_cpu: float  # the same, of the store
    commands: float  # a second, those inside scripts included
    reads: float  # a second: reads of the store from its sockets, about the number of round trips
    resident_mib: float  # of the server


class Run(msgspec.Struct, frozen=True):
    """Both at the same time."""

    many: Rest
    few: Rest
    foreign: float  # CPU of other processes, % of one core


class _Reading(msgspec.Struct, frozen=True):
    """Counters at one instant."""

    at: float
    cpu: float
    store_cpu: float
    commands: int
    reads: int


def run(options: Options, _: int) -> Run:
    """One run."""
    foreign = Foreign()
    with external_store() as large, external_store() as small:
        fill(large, "bench", HOOK, tomorrow(), options.count)
        fill(small, "bench", HOOK, tomorrow(), FEW)
        with replicas(large, 1, SETTINGS) as [many], replicas(small, 1, SETTINGS) as [few]:
            pairs = [(large, many.pid or 0), (small, few.pid or 0)]
            time.sleep(SETTLING)
            before = [_read(*pair) for pair in pairs]
            time.sleep(options.seconds)
            much, little = (_rest(then, *pair) for then, pair in zip(before, pairs, strict=True))
    return Run(much, little, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.many, run.few) for run in runs]
    return [
        Row("CPU, % of a core", [a.cpu for a, _ in sides], [b.cpu for _, b in sides]),
        Row("store CPU, %", [a.store_cpu for a, _ in sides], [b.store_cpu for _, b in sides]),
        Row("commands/s", [a.commands for a, _ in sides], [b.commands for _, b in sides]),
        Row("round trips/s", [a.reads for a, _ in sides], [b.reads for _, b in sides]),
        Row("RSS, MiB", [a.resident_mib for a, _ in sides], [b.resident_mib for _, b in sides]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(_: Run) -> list[str]:
    """Problems of the run: there are none, as nothing can be lost."""
    return []


def _read(store: ExternalStore, pid: int) -> _Reading:
    told = store.info()
    commands, reads = told["total_commands_processed"], told["total_reads_processed"]
    return _Reading(time.monotonic(), cpu_seconds(pid), store.cpu(), commands, reads)


def _rest(then: _Reading, store: ExternalStore, pid: int) -> Rest:
    now = _read(store, pid)
    seconds = now.at - then.at
    # Without the cost of the second reading itself: HELLO, CLIENT SETINFO and INFO.
    commands, reads = _own_cost(store)
    return Rest(
        cpu=round(100 * (now.cpu - then.cpu) / seconds, 2),
        store_cpu=round(100 * (now.store_cpu - then.store_cpu) / seconds, 2),
        commands=round(max(0, now.commands - then.commands - commands) / seconds, 2),
        reads=round(max(0, now.reads - then.reads - reads) / seconds, 2),
        resident_mib=round(resident_mib(pid), 1),
    )


def _own_cost(store: ExternalStore) -> tuple[int, int]:
    one, two = store.info(), store.info()
    names = ("total_commands_processed", "total_reads_processed")
    commands, reads = (two[name] - one[name] for name in names)
    return commands, reads
