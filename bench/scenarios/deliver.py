"""Deliver: messages due at one instant, beside a bare aiohttp client that sends the same."""

import time

import msgspec

from bench.ceilings.poster import Order, Posted, post
from bench.create_load import Load, load
from bench.peers.peer import peer
from bench.processes import Foreign
from bench.receiver import Arrivals, Receiver
from bench.report import Options, Row
from bench.server import Target, server

COUNT = 20_000
BESIDE = "bare aiohttp"
IN_FLIGHT = 256
SETTINGS = {"MAX_IN_FLIGHT": str(IN_FLIGHT), "DESTINATION_CONCURRENCY": str(IN_FLIGHT)}
CREATED_A_SECOND = 2500  # planned rate of the creates before the due instant
BEFORE = 0.2  # seconds before the instant at which CPU time begins to count
PATIENCE = 30.0  # seconds without an arrival after which the rest is lost


class Delivered(msgspec.Struct, frozen=True):
    """Our arrivals."""

    rate: float  # arrivals a second, between the first and the last
    first_ms: float  # first arrival − due
    last_ms: float
    lost: int
    duplicates: int
    early: int
    created: Load
    cpu_s: tuple[float, float] | None  # scheduler, store: from just before the instant on


class Theirs(msgspec.Struct, frozen=True):
    """The peer's arrivals."""

    rate: float
    first_ms: float
    last_ms: float
    lost: int
    duplicates: int
    early: int
    cpu_s: tuple[float, float]


class Bare(msgspec.Struct, frozen=True):
    """The bare client's arrivals."""

    rate: float
    lost: int
    posted: Posted


class Run(msgspec.Struct, frozen=True):
    """All, to one receiver."""

    ours: Delivered
    ceiling: Bare
    count: int
    foreign: float  # CPU of other processes, % of one core; with --url the server too
    peer: Theirs | None = None


def run(options: Options, index: int) -> Run:
    """One run; in every second run the ceiling goes first."""
    foreign = Foreign()
    with Receiver() as receiver:
        ceiling = _ceiling(receiver, options.count) if index % 2 else None
        with server(options.url, options.token, SETTINGS) as target:
            ours = drain(target, receiver, options)
        ceiling = ceiling or _ceiling(receiver, options.count)
        peer = _peer(options.peer, receiver, options) if options.peer else None
    return Run(ours, ceiling, options.count, foreign.percent(), peer)


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    ours = [run.ours for run in runs]
    peers = [run.peer for run in runs if run.peer]
    found = [
        Row(
            "deliveries/s",
            [a.rate for a in ours],
            [run.ceiling.rate for run in runs],
            [a.rate for a in peers],
        ),
        Row(
            "scheduler CPU, s/1,000",
            [1000 * run.ours.cpu_s[0] / run.count for run in runs if run.ours.cpu_s],
            [1000 * run.ceiling.posted.cpu_s / run.count for run in runs],
            [1000 * run.peer.cpu_s[0] / run.count for run in runs if run.peer],
        ),
        Row(
            "store CPU, s/1,000",
            [1000 * run.ours.cpu_s[1] / run.count for run in runs if run.ours.cpu_s],
            [],
            [1000 * run.peer.cpu_s[1] / run.count for run in runs if run.peer],
        ),
        Row("first arrival − due, ms", [a.first_ms for a in ours], [], [a.first_ms for a in peers]),
        Row("last arrival − due, ms", [a.last_ms for a in ours], [], [a.last_ms for a in peers]),
        Row("lost", [float(a.lost) for a in ours], [], [float(a.lost) for a in peers]),
        Row(
            "duplicates",
            [float(a.duplicates) for a in ours],
            [],
            [float(a.duplicates) for a in peers],
        ),
        Row("early", [float(a.early) for a in ours], [], [float(a.early) for a in peers]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]
    return [row for row in found if row.ours]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    ceiling = run.ceiling
    return wrong(run.ours) + [f"ceiling: statuses {ceiling.posted.statuses}"] * bool(ceiling.lost)


def wrong(ours: Delivered) -> list[str]:
    """Problems of the arrivals, in words."""
    found = {
        f"{ours.lost} lost": ours.lost,
        f"{ours.duplicates} duplicates": ours.duplicates,
        f"{ours.early} early": ours.early,
        f"creates: statuses {ours.created.statuses}": ours.created.refused,
    }
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
    due = int((time.time() + lead(options, options.count)) * 1000)
    created = create(target, receiver.hook, [due] * options.count)
    time.sleep(max(0, due / 1000 - BEFORE - time.time()))
    before = target.cpu()
    arrivals = receiver.collect(options.count, PATIENCE)
    after = target.cpu()
    cpu = (after[0] - before[0], after[1] - before[1]) if before and after else None
    return _delivered(arrivals, due, options.count, created, cpu)


def _peer(name: str, receiver: Receiver, options: Options) -> Theirs:
    with peer(name) as theirs, theirs.working() as worker:
        due = int((time.time() + lead(options, options.count)) * 1000)
        theirs.create(receiver.hook, [due] * options.count)
        time.sleep(max(0, due / 1000 - BEFORE - time.time()))
        before = theirs.cpu(worker)
        arrivals = receiver.collect(options.count, PATIENCE)
        after = theirs.cpu(worker)
    late = arrivals.lateness_ms([due] * options.count) or [0.0]
    return Theirs(
        rate=round(arrivals.rate, 1),
        first_ms=round(late[0], 3),
        last_ms=round(late[-1], 3),
        lost=arrivals.lost(options.count),
        duplicates=arrivals.duplicates,
        early=sum(value < 0 for value in late),
        cpu_s=(after[0] - before[0], after[1] - before[1]),
    )


def _delivered(
    arrivals: Arrivals, due: int, count: int, created: Load, cpu: tuple[float, float] | None
) -> Delivered:
    late = arrivals.lateness_ms([due] * count) or [0.0]
    return Delivered(
        rate=round(arrivals.rate, 1),
        first_ms=round(late[0], 3),
        last_ms=round(late[-1], 3),
        lost=arrivals.lost(count),
        duplicates=arrivals.duplicates,
        early=sum(value < 0 for value in late),
        created=created,
        cpu_s=cpu,
    )


def _ceiling(receiver: Receiver, count: int) -> Bare:
    posted = post(Order(receiver.hook, count, in_flight=IN_FLIGHT))
    arrivals = receiver.collect(count, 0)
    return Bare(round(arrivals.rate, 1), arrivals.lost(count), posted)
