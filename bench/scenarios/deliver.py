"""Deliver: messages due at one instant, beside a bare aiohttp client that sends the same."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import inf

import msgspec

from bench.ceilings.poster import Order, Posted, post
from bench.create_load import Load, load
from bench.peers.peer import IN_FLIGHT, peer
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row, figures, figures_by_name
from bench.server import Target, fresh, server
from bench.turns import Sides, in_turn

COUNT = 20_000
BESIDE = "bare aiohttp"
SETTINGS: dict[str, str] = {}  # the defaults
OTHERS = {  # column → settings, each for a new server in the same run
    "DESTINATION_CONCURRENCY=256": {"DESTINATION_CONCURRENCY": "256"},
    "LOG_LEVEL=WARNING": {"LOG_LEVEL": "WARNING"},  # else a line a message, created and delivered
}
OURS, BARE = "ours", "bare"  # sides of a run, next to OTHERS and the peers
CREATED_A_SECOND = 2500  # planned rate of the creates before the due instant
BEFORE = 0.2  # seconds before the instant at which CPU time begins to count
PATIENCE = 30.0  # seconds without an arrival after which the rest is lost

Cpu = tuple[float, float]  # seconds: of the scheduler, of its store


class Delivered(msgspec.Struct, frozen=True):
    """The arrivals from a scheduler, ours or a peer."""

    rate: float  # arrivals a second, between the first and the last
    cpu: float | None  # s/1,000 messages, from just before the instant on
    store_cpu: float | None  # the same, of the store
    first_ms: float  # first arrival − due
    last_ms: float  # infinite if a message was lost
    lost: int
    duplicates: int
    early: int
    created: Load | None = None  # None: by a peer


class Bare(msgspec.Struct, frozen=True):
    """The bare client's arrivals."""

    rate: float
    cpu: float  # s/1,000 messages
    lost: int
    posted: Posted


class Run(msgspec.Struct, frozen=True):
    """All, to one receiver."""

    ours: Delivered
    others: dict[str, Delivered]
    bare: Bare
    peers: dict[str, Delivered]
    foreign: float  # CPU of other processes, % of one core; with --url the server too


# Row → field.
FIGURES = {
    "deliveries/s": "rate",
    "scheduler CPU, s/1,000": "cpu",
    "store CPU, s/1,000": "store_cpu",
    "first arrival − due, ms": "first_ms",
    "last arrival − due, ms": "last_ms",
    "lost": "lost",
    "duplicates": "duplicates",
    "early": "early",
}
OF_BARE = ("rate", "cpu")  # fields that the bare client has too


def run(options: Options, index: int) -> Run:
    """One run; in every second run the order is reversed."""
    foreign = Foreign()
    others = {} if options.url else OTHERS
    with Receiver() as receiver:
        sides: Sides = {
            OURS: lambda: _ours(receiver, options),
            **{name: partial(drain_new, others[name], receiver, options) for name in others},
            BARE: lambda: _bare(receiver, options.count),
            **{name: partial(_peer, name, receiver, options) for name in options.peers},
        }
        found = in_turn(index, sides)
    return Run(
        found[OURS],
        {name: found[name] for name in others},
        found[BARE],
        {name: found[name] for name in options.peers},
        foreign.percent(),
    )


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    ours, bare = [run.ours for run in runs], [run.bare for run in runs]
    others, peers = [run.others for run in runs], [run.peers for run in runs]
    found = [
        Row(
            name,
            figures(ours, field),
            figures(bare, field) if field in OF_BARE else [],
            figures_by_name(others, field),
            figures_by_name(peers, field),
        )
        for name, field in FIGURES.items()
    ]
    found.append(Row("foreign CPU, %", [run.foreign for run in runs]))
    return [row for row in found if row.ours]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    bare = run.bare
    others = [f"{name}: {text}" for name, side in run.others.items() for text in wrong(side)]
    return wrong(run.ours) + others + [f"bare: statuses {bare.posted.statuses}"] * bool(bare.lost)


def wrong(ours: Delivered) -> list[str]:
    """Problems of the arrivals, in words."""
    found = {
        f"{ours.lost} lost": ours.lost,
        f"{ours.duplicates} duplicates": ours.duplicates,
        f"{ours.early} early": ours.early,
    }
    if ours.created:
        found[f"creates: statuses {ours.created.statuses}"] = ours.created.refused
    return [text for text, count in found.items() if count]


def lead(options: Options, count: int) -> float:
    """Seconds from the first create to the first due instant."""
    return lead_of(count) if options.lead is None else options.lead


def lead_of(count: int) -> float:
    """The default of that, for this many messages."""
    return 3 + count / CREATED_A_SECOND


def create(target: Target, hook: str, due_ms: list[int]) -> Load:
    """Create all messages. Raises: RuntimeError if the first was due before the end."""
    made = load(target, f"bench-{time.time_ns():x}", hook, due_ms)
    if time.time() * 1000 > min(due_ms):
        raise RuntimeError("messages were due before all were created: give a longer --lead")
    return made


def drain(target: Target, receiver: Receiver, options: Options) -> Delivered:
    """Create all messages for one instant, and wait for their arrival."""
    due = _due(options)
    created = create(target, receiver.hook, [due] * options.count)
    return _arrived(receiver, due, options.count, target.cpu, created)


def drain_new(settings: dict[str, str], receiver: Receiver, options: Options) -> Delivered:
    """The same with a new server."""
    with fresh(settings) as target:
        return drain(target, receiver, options)


def _ours(receiver: Receiver, options: Options) -> Delivered:
    with server(options.url, options.token, SETTINGS) as target:
        return drain(target, receiver, options)


def _peer(name: str, receiver: Receiver, options: Options) -> Delivered:
    with peer(name) as theirs, theirs.working() as worker:
        due = _due(options)
        theirs.create(receiver.hook, [due] * options.count)
        return _arrived(receiver, due, options.count, lambda: theirs.cpu(worker))


def _due(options: Options) -> int:
    return int((time.time() + lead(options, options.count)) * 1000)


def _arrived(
    receiver: Receiver,
    due: int,
    count: int,
    cpu: Callable[[], Cpu | None],
    created: Load | None = None,
) -> Delivered:
    time.sleep(max(0, due / 1000 - BEFORE - time.time()))
    before = cpu()
    arrivals = receiver.collect(count, PATIENCE)
    after = cpu()
    lost = arrivals.lost(count)
    late = arrivals.lateness_ms([due] * count) + [inf] * lost
    used: Sequence[float | None] = (None, None)
    if before and after:
        used = [1000 * (b - a) / count for a, b in zip(before, after, strict=True)]
    return Delivered(
        rate=round(arrivals.rate, 1),
        cpu=used[0],
        store_cpu=used[1],
        first_ms=round(late[0], 3),
        last_ms=round(late[-1], 3),
        lost=lost,
        duplicates=arrivals.duplicates,
        early=sum(value < 0 for value in late),
        created=created,
    )


def _bare(receiver: Receiver, count: int) -> Bare:
    posted = post(Order(receiver.hook, count, in_flight=IN_FLIGHT))
    arrivals = receiver.collect(count, 0)
    cpu = 1000 * posted.cpu_s / count
    return Bare(round(arrivals.rate, 1), cpu, arrivals.lost(count), posted)
