"""Memory: bytes of a pending message, on each installed store."""

import shutil
import time
from pathlib import Path

import msgspec

from bench.external_store import ExternalStore, external_store
from bench.fill_store import DAY_MS, fill, tomorrow
from bench.peers.peer import peer
from bench.report import Options, Row, figures_by_name
from bench.scenarios.create import HOOK
from scheduler_api.store.embedded.launch import find_binary

COUNT = 100_000
BESIDE = ""
SETTINGS: dict[str, str] = {}
REDIS = "redis-server"  # measured too if it is in PATH


class Taken(msgspec.Struct, frozen=True):
    """Memory of one store."""

    store: str  # its name and version
    used: float  # bytes a message by used_memory
    resident: float  # the same by used_memory_rss


class Run(msgspec.Struct, frozen=True):
    """Each store."""

    ours: list[Taken]
    peers: dict[str, Taken]  # without those whose store keeps pending messages on disk


def run(options: Options, _: int) -> Run:
    """One run."""
    redis = shutil.which(REDIS)
    binaries = [find_binary(), *([Path(redis)] if redis else [])]
    peers = {name: _peer(name, options.count) for name in options.peers}
    return Run(
        [_ours(binary, options.count) for binary in binaries],
        {name: taken for name, taken in peers.items() if taken},
    )


def rows(runs: list[Run]) -> list[Row]:
    """The rows of the table."""
    found = []
    for number, first in enumerate(runs[0].ours):
        each = [run.ours[number] for run in runs]
        used, resident = [one.used for one in each], [one.resident for one in each]
        # The peers used the first of our stores.
        peers = [run.peers if number == 0 else {} for run in runs]
        found += [
            Row(f"bytes a message, {first.store}", used, peers=figures_by_name(peers, "used")),
            Row("the same, resident", resident, peers=figures_by_name(peers, "resident")),
        ]
    return found


def problems(_: Run) -> list[str]:
    """Problems of the run: there are none, as `fill` raises if a create fails."""
    return []


def _ours(binary: Path, count: int) -> Taken:
    with external_store(binary) as store:
        before = store.info()
        fill(store, "bench", HOOK, tomorrow(), count)
        return _taken(store, before, count)


def _peer(name: str, count: int) -> Taken | None:
    with peer(name) as theirs:
        store = theirs.store
        if not isinstance(store, ExternalStore):
            return None
        before = store.info()
        first = time.time_ns() // 1_000_000 + DAY_MS
        theirs.create(HOOK, [first + n for n in range(count)])
        return _taken(store, before, count)


def _taken(store: ExternalStore, before: dict[str, int], count: int) -> Taken:
    after = store.info()
    name = after.get("server_name", "redis")
    version = after.get(f"{name}_version", "")
    used = (after["used_memory"] - before["used_memory"]) / count
    resident = (after["used_memory_rss"] - before["used_memory_rss"]) / count
    return Taken(f"{name} {version}", round(used, 1), round(resident, 1))
