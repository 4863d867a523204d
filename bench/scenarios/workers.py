"""Workers: messages due at one instant, sent by two processes, beside one."""

import msgspec

from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row
from bench.scenarios import deliver
from bench.scenarios.deliver import Delivered
from bench.server import fresh

COUNT = 20_000
BESIDE = "WORKERS=1"
SETTINGS = deliver.SETTINGS | {"WORKERS": "2"}


class Run(msgspec.Struct, frozen=True):
    """Both, to one receiver."""

    two: Delivered
    one: Delivered
    count: int
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, index: int) -> Run:
    """One run; in every second run the single process goes first."""
    foreign = Foreign()
    with Receiver() as receiver:
        one = _drain("1", receiver, options) if index % 2 else None
        two = _drain("2", receiver, options)
        one = one or _drain("1", receiver, options)
    return Run(two, one, options.count, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.two, run.one) for run in runs]
    return [
        Row("deliveries/s", [a.rate for a, _ in sides], [b.rate for _, b in sides]),
        Row("last arrival − due, ms", [a.last_ms for a, _ in sides], [b.last_ms for _, b in sides]),
        _cpu("scheduler CPU, s/1,000", runs, 0),
        _cpu("store CPU, s/1,000", runs, 1),
        Row("lost", [float(a.lost) for a, _ in sides]),
        Row("duplicates", [float(a.duplicates) for a, _ in sides]),
        Row("early", [float(a.early) for a, _ in sides]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {"WORKERS=2": run.two, "WORKERS=1": run.one}
    return [f"{name}: {text}" for name, side in sides.items() for text in deliver.wrong(side)]


def _cpu(name: str, runs: list[Run], part: int) -> Row:
    def each(sides: list[Delivered]) -> list[float]:
        counted = zip(sides, runs, strict=True)
        return [1000 * side.cpu_s[part] / run.count for side, run in counted if side.cpu_s]

    return Row(name, each([run.two for run in runs]), each([run.one for run in runs]))


def _drain(workers: str, receiver: Receiver, options: Options) -> Delivered:
    with fresh(SETTINGS | {"WORKERS": workers}) as target:
        return deliver.drain(target, receiver, options)
