"""One schedule: a seed chooses its options, who steps when, and which faults occur.

First the safety phase: steps and faults, with the invariants checked between them. Then the
liveness phase: all faults are healed, and every accepted message has to arrive (phases.py).
"""

import random
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final

from scheduler_api.store.queue import Queue
from tests.sim import options, phases
from tests.sim.callers import Callers
from tests.sim.checks import Checks
from tests.sim.destination_checker import Flow
from tests.sim.faults import Faults
from tests.sim.lease import Lease
from tests.sim.ledger import Ledger
from tests.sim.model import NOTHING, Content, at_once
from tests.sim.permit_checker import split
from tests.sim.replica import NEXT_DUTIES, Replica
from tests.sim.store_on_model import StoreOnModel

START: Final = 1_800_000_000_000  # ms


class World:
    """The processes, their clock and the store; callers, faults and checks work on it."""

    def __init__(self, store: StoreOnModel, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)  # noqa: S311
        self.options = options.draw(self.rng)
        self.store = store
        self.server = store.server
        self.server.reset()
        self.rules = store.rules
        self.data = store.divided[self.options.partitions]
        self.now = START  # ms, the clock of the processes
        self.skew = 0  # ms, the store's clock − theirs
        self.flow = Flow(self.options.concurrency, self.data.partitions)
        self.ledger = Ledger(self.flow)
        self.ledger.strict = self.options.strict
        self.quick = set(self.options.quick_hosts)  # destinations that processes take for quick
        self.counts: Counter[str] = Counter()  # faults so far
        self.replicas: list[Replica] = []
        self._started = 0  # processes so far
        self._dead: list[str] = []  # ids of those that died
        self.checks = Checks(self)
        self.faults = Faults(self)
        self.callers = Callers(self)
        self.set_clock()
        self._begin()

    def _begin(self) -> None:
        if self.options.schema_known:
            for scripts in self.data.scripts:
                at_once(scripts.check_schema())
        if self.options.unreachable_host:
            self.faults.miss_before(self.options.unreachable_host)
        for slots in self.options.slots:
            self._start(slots)

    def run(self) -> None:
        """The whole schedule. Raises: Broken, and any error that a script raises."""
        phases.Safety(self).run()
        phases.Liveness(self).run()

    # Clock.

    @property
    def store_ms(self) -> int:
        """The store's clock."""
        return self.now + self.skew

    def set_clock(self) -> None:
        """Show the store its clock."""
        self.server.now_us = self.store_ms * 1000 + 999
        self.ledger.clock(self.store_ms)

    def advance(self, ms: int) -> None:
        """Let time pass; the timers of every process that is not stopped go off."""
        end = self.now + ms
        while self.now < end:
            busy = any(one.leases for one in self.replicas)
            self.now = min(end, self.now + NEXT_DUTIES) if busy else end
            self.set_clock()
            for one in self.replicas:
                if one.acts and one.duties_at <= self.now:
                    one.duties()
                if one.acts and not one.stopped and self.server.down:
                    self._look(one)

    def _look(self, one: Replica) -> None:
        for claimer in one.claimers:
            if claimer.look_at <= self.now:
                one.look(claimer)

    # Processes.

    def _start(self, slots: int) -> None:
        self._started += 1
        limit, retention = self.options.concurrency, self.options.retention_ms
        queues = self.data.queues(f"worker_id-{self._started}", limit, retention)
        self.replicas.append(Replica(self, queues, slots))

    def kill(self, replica: Replica) -> None:
        """End a process; another one is started in its place."""
        replica.dead = True
        self.excuse(replica)
        self._dead.append(replica.worker_id)
        self.replicas.remove(replica)
        self._start(self.rng.randint(1, self.options.max_slots))

    def excuse(self, replica: Replica) -> None:
        """All that it holds may be sent a second time."""
        for lease in (*replica.leases, *replica.given_up):
            lease.excused = True
            self.ledger.expose(lease)

    def open(self) -> Iterator[Lease]:
        """Requests under way."""
        return (lease for one in self.replicas for lease in one.leases if lease.open)

    def released(self, leases: list[Lease]) -> None:
        """Note that they were given back."""
        for lease in leases:
            if lease.offer.holder is lease:  # else it had been reaped before
                lease.offer.holder = None

    def reap(self, ask: Callable[[Coroutine[Any, Any, Any]], Any], queue: Queue) -> None:
        """Take back claims whose lease has expired."""
        self._take_back(ask, queue, queue.reap())

    def recover(self, ask: Callable[[Coroutine[Any, Any, Any]], Any], queue: Queue) -> None:
        """Take back the claims of a process of this machine that died."""
        if self._dead:
            self._take_back(ask, queue, queue.recover(self.rng.choice(self._dead)))

    def _take_back(
        self,
        ask: Callable[[Coroutine[Any, Any, Any]], Any],
        queue: Queue,
        call: Coroutine[Any, Any, Any],
    ) -> None:
        before, claims = set(self.stored("leases")), self.stored_in(queue.partition, "claims")
        ask(call)
        for message_id in before - set(self.stored("leases")):
            claim = split(claims.get(message_id, b""))
            for one in self.replicas:
                if claim and claim.worker_id == one.worker_id:
                    one.lossy.add((queue.partition, claim.destination))
            name = message_id.decode()
            if name in self.ledger.stored:
                failed = message_id not in self.stored("due")
                self.ledger.taken_back(name, self.store_ms, failed)

    # What the store holds.

    def stored_in(self, partition: int, name: str) -> Content:
        """The content of a partition's key."""
        return self.server.stored().get(self.data.places[partition][name], NOTHING)

    def stored(self, name: str) -> Content:
        """The same of all partitions, of a key whose members are message ids."""
        if self.data.partitions == 1:
            return self.stored_in(0, name)
        partitions = range(self.data.partitions)
        return {id_: it for one in partitions for id_, it in self.stored_in(one, name).items()}

    def lease_end(self, message_id: str) -> int:
        """By the store's clock, ms; 0 if it is not leased."""
        return int(self.stored("leases").get(message_id.encode(), 0))

    def is_held_by(self, lease: Lease) -> bool:
        """Whether the message's claim is that of the lease's process."""
        claim = self.stored("claims").get(lease.claimed.id.encode(), b"")
        return lease.replica.worker_id.encode() in claim.split(b" ")
