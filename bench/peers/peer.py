"""A peer under test: its worker, its producer and its own store.

All have `IN_FLIGHT` requests under way, a timeout of 30 s, 5 attempts, and keep no results. Their
store syncs every second, PostgreSQL at least that often, which is less work than ours promises.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final

import msgspec

from bench.external_store import ExternalStore, external_store
from bench.payloads import payload
from bench.postgres import Postgres, postgres
from bench.processes import Program, cpu_seconds

HERE: Final = Path(__file__).parent
IN_FLIGHT: Final = 256

Store = ExternalStore | Postgres


class Kind(msgspec.Struct, frozen=True):
    """How one of the peers is run."""

    command: tuple[str, ...]  # its arguments: a role, the store's address, the requests in flight
    store: Callable[[], AbstractContextManager[Store]] = partial(external_store, fsync="everysec")


PEERS: Final = {
    "bullmq": Kind(("node", str(HERE / "bullmq.mjs"))),
    "arq": Kind((str(HERE / ".installed/arq/bin/python"), str(HERE / "arq_app.py"))),
    "graphile": Kind(("node", str(HERE / "graphile.mjs")), postgres),
}


class Order(msgspec.Struct, frozen=True):
    """What to create: message n is due at due_ms[n]."""

    prefix: str  # of the ids, of which a peer accepts each once
    hook: str
    due_ms: Sequence[int]
    payloads: list[msgspec.Raw]


class Made(msgspec.Struct, frozen=True):
    """The cost of creating by the peer's own producer, without HTTP."""

    seconds: float
    cpu_s: float


class Peer:
    """One peer and its store."""

    def __init__(self, name: str, store: Store) -> None:
        self._name = name
        self._orders = count()
        self.store = store

    def create(self, hook: str, due_ms: Sequence[int]) -> Made:
        """Create all messages. Raises: RuntimeError, also if the first was due before the end."""
        payloads = [msgspec.Raw(payload(n)) for n in range(len(due_ms))]
        order = Order(f"bench-{next(self._orders)}", hook, due_ms, payloads)
        with self._program("create") as producer:
            made = msgspec.convert(producer.ask(order), Made)
        if time.time() * 1000 > min(due_ms):
            raise RuntimeError("messages were due before all were created: give a longer --lead")
        return made

    @contextmanager
    def working(self) -> Iterator[int]:
        """Run its worker, and wait until it is ready → pid; it may be killed meanwhile."""
        with self._program("work") as worker:
            worker.read()
            yield worker.pid

    def cpu(self, worker: int) -> tuple[float, float]:
        """CPU seconds so far of the worker and of the store."""
        return cpu_seconds(worker), self.store.cpu()

    def _program(self, role: str) -> Program:
        if not (HERE / ".installed" / self._name).exists():
            raise RuntimeError(f"{self._name} is not installed: bench/peers/setup {self._name}")
        return Program(*PEERS[self._name].command, role, self.store.address, str(IN_FLIGHT))


@contextmanager
def peer(name: str) -> Iterator[Peer]:
    """A peer with an empty store."""
    with PEERS[name].store() as store:
        yield Peer(name, store)
