"""Scale: create, list, lateness and claim with many messages pending, beside 10,000."""

import time
from http.client import HTTPConnection
from statistics import median

import msgspec

from bench.claim_loop import claim
from bench.create_load import load
from bench.external_store import ExternalStore, external_store
from bench.fill_store import fill, tomorrow
from bench.processes import Foreign
from bench.receiver import Receiver
from bench.report import Options, Row
from bench.scenarios import deliver
from bench.scenarios.create import HOOK
from bench.scenarios.deliver import PATIENCE
from bench.scenarios.lateness import RATE, Late, late, spread
from bench.scenarios.replicas import replicas
from bench.server import Target

COUNT = 1_000_000
FEW = 10_000
BESIDE = f"{FEW:,} pending"
SETTINGS: dict[str, str] = {}  # the defaults
CREATED = 10_000  # messages, over HTTP
PAGES = 21  # of the list
CLAIMS = 20  # of 100 each
SECONDS = 10  # of lateness


class Figures(msgspec.Struct, frozen=True):
    """The figures with this many messages pending."""

    created: float  # messages/s over HTTP
    refused: int
    page_ms: float  # median of the first page of 1,000
    late: Late
    claim_ms: float  # median of claims of 100


class Run(msgspec.Struct, frozen=True):
    """Both, one after the other in the same store."""

    many: Figures
    few: Figures
    fill_rate: float  # messages/s directly into the store
    foreign: float  # CPU of other processes, % of one core


def run(options: Options, _: int) -> Run:
    """One run."""
    foreign = Foreign()
    due_ms = tomorrow()
    with Receiver() as receiver, external_store() as store:
        fill(store, "bench", HOOK, due_ms, FEW)
        few = _measure(store, receiver)
        more = max(1, options.count - FEW)
        seconds = fill(store, "bench", HOOK, due_ms, more, FEW)
        many = _measure(store, receiver)
    return Run(many, few, round(more / seconds, 1), foreign.percent())


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    sides = [(run.many, run.few) for run in runs]
    lates = [(a.late, b.late) for a, b in sides]
    return [
        Row("created/s over HTTP", [a.created for a, _ in sides], [b.created for _, b in sides]),
        Row("claim of 100, ms", [a.claim_ms for a, _ in sides], [b.claim_ms for _, b in sides]),
        Row("page of 1,000, ms", [a.page_ms for a, _ in sides], [b.page_ms for _, b in sides]),
        Row("lateness p50, ms", [a.p50_ms for a, _ in lates], [b.p50_ms for _, b in lates]),
        Row("lateness p99, ms", [a.p99_ms for a, _ in lates], [b.p99_ms for _, b in lates]),
        Row("lost", [float(a.lost + b.lost) for a, b in lates]),
        Row("duplicates", [float(a.duplicates + b.duplicates) for a, b in lates]),
        Row("early", [float(a.early + b.early) for a, b in lates]),
        Row("filled/s, past the API", [run.fill_rate for run in runs]),
        Row("foreign CPU, %", [run.foreign for run in runs]),
    ]


def problems(run: Run) -> list[str]:
    """Problems that make the run invalid."""
    found = []
    for name, side in {"many": run.many, "few": run.few}.items():
        found += [f"{name}: {text}" for text in side.late.problems()]
        found += [f"{name}: {side.refused} creates refused"] * bool(side.refused)
    return found


def _measure(store: ExternalStore, receiver: Receiver) -> Figures:
    with replicas(store, 1, SETTINGS) as [target]:
        first = tomorrow()
        created = load(target, _prefix(), HOOK, [first + n for n in range(CREATED)])
        page_ms = _page_ms(target)
        due_ms = spread(SECONDS, deliver.lead_of(SECONDS * RATE))
        deliver.create(target, receiver.hook, due_ms)
        time.sleep(max(0, max(due_ms) / 1000 - time.time()))
        lateness = late(receiver.collect(len(due_ms), PATIENCE), due_ms)
    # The server has ended, so due messages wait for our claims.
    fill(store, _prefix(), HOOK, time.time_ns() // 1_000_000 - 3_600_000, 100 * CLAIMS)
    claim_ms = round(median(claim(store, CLAIMS)), 3)
    return Figures(created.rate, created.refused, page_ms, lateness, claim_ms)


def _prefix() -> str:
    return f"bench-{time.time_ns():x}"


def _page_ms(target: Target) -> float:
    times = []
    connection = HTTPConnection(target.host, target.port)
    for _ in range(PAGES):
        began = time.perf_counter()
        headers = {"Authorization": f"Bearer {target.token}"}
        connection.request("GET", "/messages", headers=headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"GET /messages answered {answer.status}")
        times.append(1000 * (time.perf_counter() - began))
    connection.close()
    return round(median(times), 3)
