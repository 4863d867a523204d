"""Workers: messages due at one instant, sent by one process, beside two."""

from functools import partial

import msgspec

from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row, figures
from bench.scenarios import deliver
from bench.scenarios.deliver import Delivered
from bench.turns import in_turn

COUNT = 20_000
BESIDE = "WORKERS=2"
SETTINGS: dict[str, str] = {}  # the defaults, of which WORKERS=1 is one
OURS = "WORKERS=1"


class Run(msgspec.Struct, frozen=True):
    """Both, to one receiver."""

    one: Delivered
    two: Delivered
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, index: int) -> Run:
    """One run; in every second run the two processes go first."""
    foreign = Foreign()
    settings = {OURS: SETTINGS, BESIDE: {"WORKERS": "2"}}
    with Receiver() as receiver:
        found = in_turn(
            index,
            {
                name: partial(deliver.drain_new, given, receiver, options)
                for name, given in settings.items()
            },
        )
    return Run(found[OURS], found[BESIDE], foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    one, two = [run.one for run in runs], [run.two for run in runs]
    return [
        *(
            Row(name, figures(one, field), figures(two, field))
            for name, field in deliver.FIGURES.items()
        ),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    sides = {OURS: run.one, BESIDE: run.two}
    return [f"{name}: {text}" for name, side in sides.items() for text in deliver.wrong(side)]
