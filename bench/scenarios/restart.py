"""Restart: `kill -9` in the middle of a drain, then either a restart or another replica."""

import os
import signal
import tempfile
import time
from functools import partial
from math import inf
from pathlib import Path

import msgspec

from bench.external_store import external_store
from bench.peers.peer import peer
from bench.processes import Foreign
from bench.receiver import Arrivals, Receiver
from bench.report import Options, Row, figures, figures_by_name
from bench.scenarios import deliver
from bench.scenarios.replicas import replicas
from bench.server import serving
from bench.turns import Sides, in_turn

COUNT = 4_000
BESIDE = "other replica"
SETTINGS: dict[str, str] = {}  # the defaults
RESTARTED = "restarted"  # a side of a run, next to BESIDE and the peers
MAX_DUPLICATES = 256  # requests that are open or not yet settled at the kill: MAX_IN_FLIGHT
LIMIT = 60.0  # longest time until the kill, seconds
PATIENCE = 120.0  # seconds without an arrival after which the rest is lost; BullMQ takes 60
LOOK_EVERY = 0.002  # seconds


class Recovered(msgspec.Struct, frozen=True):
    """The arrivals despite the kill."""

    last_s: float  # last arrival − kill; infinite if a message was lost
    lost: int
    duplicates: int
    early: int


class Run(msgspec.Struct, frozen=True):
    """All to one receiver."""

    restarted: Recovered  # the same command on the same machine, at once
    replaced: Recovered  # by a replica that ran already
    peers: dict[str, Recovered]  # restarted
    foreign: float  # CPU of other processes, % of one core


# Row → field.
FIGURES = {
    "last arrival − kill, s": "last_s",
    "lost or not within the patience": "lost",
    "duplicates": "duplicates",
    "early": "early",
}


def run(options: Options, index: int) -> Run:
    """One run; in every second run the order is reversed."""
    foreign = Foreign()
    with Receiver() as receiver:
        sides: Sides = {
            RESTARTED: lambda: _restarted(receiver, options),
            BESIDE: lambda: _replaced(receiver, options),
            **{name: partial(_peer, name, receiver, options) for name in options.peers},
        }
        found = in_turn(index, sides)
    peers = {name: found[name] for name in options.peers}
    return Run(found[RESTARTED], found[BESIDE], peers, foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    found = [
        Row(
            name,
            figures([run.restarted for run in runs], field),
            figures([run.replaced for run in runs], field),
            peers=figures_by_name([run.peers for run in runs], field),
        )
        for name, field in FIGURES.items()
    ]
    return [*found, Row("foreign CPU, %", [run.foreign for run in runs])]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    found = []
    for name, side in {"restarted": run.restarted, "other replica": run.replaced}.items():
        wrong = {
            f"{side.lost} lost": side.lost,
            f"{side.early} early": side.early,
            f"{side.duplicates} duplicates": side.duplicates > MAX_DUPLICATES,
        }
        found += [f"{name}: {text}" for text, count in wrong.items() if count]
    return found


def _restarted(receiver: Receiver, options: Options) -> Recovered:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        with serving(Path(folder), SETTINGS) as target:
            due = _due(options)
            deliver.create(target, receiver.hook, [due] * options.count)
            killed_at = _kill_midway(target.pid or 0, receiver, options.count)
        with serving(Path(folder), SETTINGS):
            return _recovered(
                receiver.collect(options.count, PATIENCE), due, killed_at, options.count
            )


def _replaced(receiver: Receiver, options: Options) -> Recovered:
    with external_store() as store, replicas(store, 2, SETTINGS) as [first, _]:
        due = _due(options)
        deliver.create(first, receiver.hook, [due] * options.count)
        killed_at = _kill_midway(first.pid or 0, receiver, options.count)
        return _recovered(receiver.collect(options.count, PATIENCE), due, killed_at, options.count)


def _peer(name: str, receiver: Receiver, options: Options) -> Recovered:
    with peer(name) as theirs:
        with theirs.working() as worker:
            due = _due(options)
            theirs.create(receiver.hook, [due] * options.count)
            killed_at = _kill_midway(worker, receiver, options.count)
        with theirs.working():
            return _recovered(
                receiver.collect(options.count, PATIENCE), due, killed_at, options.count
            )


def _due(options: Options) -> int:
    return int((time.time() + deliver.lead(options, options.count)) * 1000)


def _kill_midway(pid: int, receiver: Receiver, count: int) -> float:
    """Kill when a quarter has arrived → seconds since 1970. Raises: RuntimeError."""
    deadline = time.monotonic() + LIMIT
    while int(receiver.ask("count")) < count // 4:
        if time.monotonic() > deadline:
            raise RuntimeError("a quarter of the messages never arrived")
        time.sleep(LOOK_EVERY)
    os.kill(pid, signal.SIGKILL)
    killed_at = time.time()
    if int(receiver.ask("count")) == count:
        raise RuntimeError("all had arrived before the kill: give a larger --count")
    return killed_at


def _recovered(arrivals: Arrivals, due: int, killed_at: float, count: int) -> Recovered:
    late = arrivals.lateness_ms([due] * count)
    lost = arrivals.lost(count)
    return Recovered(
        last_s=inf if lost else round(max(arrivals.at_ns) / 1e9 - killed_at, 3),
        lost=lost,
        duplicates=arrivals.duplicates,
        early=sum(value < 0 for value in late),
    )
