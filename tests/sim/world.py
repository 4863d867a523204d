"""One schedule: a seed chooses who steps, dies, is stopped, is cut off, whose reply is lost.

After each step the store's invariants hold; in the end all faults are healed, and what was
accepted has to arrive. Many of them: campaign.py.
"""

import random
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from scheduler_api.domain.destination import Destination, Limits, Rate
from scheduler_api.domain.errors import (
    DestinationNotFound,
    DuplicateMessage,
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    OtherPartitions,
    StoreFull,
    StoreUnavailable,
    Unavailable,
)
from scheduler_api.domain.message import Accepted
from scheduler_api.store.audit.dump import Restorable
from scheduler_api.store.audit.invariants import Snapshot, destination_claimed, findings
from scheduler_api.store.codec.record import from_ms, to_ms
from scheduler_api.store.keys import partition_of
from scheduler_api.store.messages import new_of
from scheduler_api.store.queue import Claim, Queue
from tests.sim.destination_checker import Flow
from tests.sim.ledger import Broken, Ledger, Offer
from tests.sim.model import NOTHING, Content, at_once
from tests.sim.replica import LEASE, NEXT_DUTIES, Claimer, Lease, Replica
from tests.sim.store_on_model import StoreOnModel
from tests.support.factories import accepted

START: Final = 1_800_000_000_000  # ms
MARGIN: Final = LEASE // 10  # ms that the store's clock may stray: as MARGIN_SHARE
STEPS: Final = (10, 30)  # of a schedule, before it is healed
ROUNDS: Final = 400  # in which a healed world has to come to rest
IDS: Final = ("a", "b", "c", "d", "e", "f")
DAY: Final = 86_400_000  # ms
LOOK_AGAIN: Final = 0.25  # seconds; see lua/queue/claim.lua
IMAGES: Final = 6  # steps that a store without `always` may lose

ABSENCES: Final = (10, 2_000, LEASE + NEXT_DUTIES, LEASE + NEXT_DUTIES)  # ms, of the store

# What callers ask for a destination.
LIMITS: Final = (
    *(None, None, Limits(1), Limits(2), Limits(4), Limits(paused=True), Limits(1, paused=True)),
    *(Limits(rate=Rate(1, "s")), Limits(rate=Rate(6, "m")), Limits(2, Rate(20, "s"))),
)
HOSTS: Final = ("127.0.0.1:2", "h.example")
# How callers write a URL to each.
SPELLINGS: Final = {
    HOSTS[0]: ("http://127.0.0.1:2/",) * 4,
    HOSTS[1]: (
        *("http://h.example/", "http://h.example:80/", "https://H.example.:443/"),
        "https://h.example./",
    ),
}
DELAYS: Final = ("0s", "0s", "1s", "20s")
_OFFERED: Final = {
    (host, delay): [accepted(webhookUrl=url, delay=delay) for url in SPELLINGS[host]]
    for host in HOSTS
    for delay in DELAYS
}
# What the receiver answers to the 1st, 2nd, … attempt; the last one repeats.
ANSWERS: Final = (
    *((200,),) * 24,
    *((500, 200), (503, 404, 204), (500, 410), (410,), (0, 200), (500, 0, 200)) * 2,
    *((0,), (500,)),
)


# What somebody may do to the keys of a living store: take an entry out, or put one in.
TAKEN_OUT: Final = (
    *(("ZREM", "due"), ("ZREM", "leases"), *[("ZREM", "taken"), ("HDEL", "claims")] * 3),
    *(("HDEL", "inflight"), ("SREM", "parking"), ("ZREM", "opens")),
    ("ZREM", "withheld"),
)
SPOILT: Final = (("claims", "x"), ("inflight", "-3"), ("inflight", "x"), ("unreachable", "x"))
PUT_IN: Final = (("ZADD", "due"), ("ZADD", "delivered"), ("ZADD", "taken"))


class World:
    """One schedule."""

    def __init__(self, machine: StoreOnModel, seed: int) -> None:
        rng = self.rng = random.Random(seed)  # noqa: S311
        self.seed = seed
        self.server = machine.server
        self.server.reset()
        self.rules = machine.rules
        self._machine = machine
        self.data = machine.divided[rng.choice((1, 1, 1, 1, 2))]
        self._seen = -1  # changes of the store that were checked
        self.now = START  # ms, the clock of the processes
        self.skew = 0  # ms, the store's clock − theirs
        self.concurrency = rng.choice((1, 1, 2, 3))
        self._hosts = rng.choice((HOSTS[:1], HOSTS))
        self._crowd = rng.choice((1, 2, 4))  # messages of one call at the most
        self._keep = rng.choice((DAY, DAY, 60_000, 0))
        self.faults = rng.choice((0.0, 0.1, 0.3))  # of calls lose their reply
        kind = rng.random()
        self.loses_tail = kind < 0.08  # a store that forgets its last writes at a restart
        self.wild_clock = 0.08 <= kind < 0.12  # a store whose clock is set by an hour
        self.damaged = 0.12 <= kind < 0.18  # a store in which somebody has tampered
        self._ruled = rng.random() < 0.4  # whether destinations get settings
        self._flaky = rng.random() < 0.25  # whether destinations cannot be reached at times
        self._unreachable: set[str] = set()
        self.rations = rng.random() < 0.5  # whether processes ration their slots
        # Destinations that processes take for quick, so that they may have any slot.
        self.quick = set(rng.choice((HOSTS[:0], HOSTS[:0], HOSTS[:1], HOSTS)))
        self.flow = Flow(self.concurrency, self.data.partitions)
        self.ledger = Ledger(self.flow)
        self.ledger.strict = not (self.loses_tail or self.wild_clock or self.damaged)
        self.messages = self.data.messages(self.concurrency)
        self.destinations = self.data.destinations(self.concurrency)
        self.images: deque[Any] = deque(maxlen=IMAGES)
        self.counts: Counter[str] = Counter()
        self.back_at = START  # ms, when the store was last away
        self.replicas: list[Replica] = []
        self._born = 0  # processes that were started
        self._dead: list[str] = []  # epochs of those that died
        self._set_clock()
        if rng.random() < 0.5:  # else the store was away when the first process started
            for scripts in self.data.scripts:
                at_once(scripts.check_schema())
        if self._flaky:
            self._miss_destinations()
        for _ in range(rng.choice((1, 2, 2, 3))):
            self._start()

    @property
    def store_ms(self) -> int:
        """The store's clock."""
        return self.now + self.skew

    def run(self) -> None:
        """The whole schedule. Raises: AssertionError, whatever a script raises."""
        for _ in range(self.rng.randrange(1, 4)):
            self._offer()
        for step in range(self.rng.randint(*STEPS)):
            self._step()
            if step % 2:  # what is broken mostly stays so
                self._check()
        self._heal()
        self._drain()
        self._leave_nothing()

    def _miss_destinations(self) -> None:
        """They have been hard to reach for a while."""
        self._unreachable.add(self.rng.choice(self._hosts))
        for partition, places in enumerate(self.data.places):
            for name in self._hosts:
                field = self.flow.missed_before(partition, name, self.store_ms)
                self.server.do("HSET", places["unreachable"], name, field)

    # Clock.

    def _set_clock(self) -> None:
        self.server.now_us = self.store_ms * 1000 + 999
        self.ledger.clock(self.store_ms)

    def _advance(self, ms: int) -> None:
        """Time passes; timers of whoever acts go off."""
        end = self.now + ms
        while self.now < end:
            busy = any(one.leases for one in self.replicas)
            self.now = min(end, self.now + NEXT_DUTIES) if busy else end
            self._set_clock()
            for one in self.replicas:
                if one.acts and one.duties_at <= self.now:
                    one.duties()
                if one.acts and not one.stopped and self.server.down:
                    self._ring(one)

    def _ring(self, one: Replica) -> None:
        for claimer in one.claimers:
            if claimer.look_at <= self.now:
                one.look(claimer)

    # Processes.

    def _start(self) -> Replica:
        self._born += 1
        queues = self.data.queues(f"epoch-{self._born}", self.concurrency, self._keep)
        replica = Replica(self, queues, self.rng.randrange(1, 5))
        self.replicas.append(replica)
        return replica

    def kill(self, replica: Replica) -> None:
        """It is gone; another one is started in its place."""
        replica.dead = True
        self._excuse(replica)
        self._dead.append(replica.epoch)
        self.replicas.remove(replica)
        self._start()

    def _excuse(self, replica: Replica) -> None:
        for lease in (*replica.leases, *replica.given_up):
            lease.excused = True
            self.ledger.expose(lease)

    def open(self) -> Iterator[Lease]:
        """Requests under way."""
        return (lease for one in self.replicas for lease in one.leases if lease.open)

    def strikes(self) -> bool:
        """Whether the reply of this call is lost."""
        struck = self.rng.random() < self.faults
        self.counts["replies lost"] += struck
        return struck

    def released(self, leases: list[Lease]) -> None:
        """They were given back."""
        for lease in leases:
            if lease.offer.holder is lease:  # else it had been reaped before
                lease.offer.holder = None

    def reap(self, ask: Callable[[Coroutine[Any, Any, Any]], Any], queue: Queue) -> None:
        """Take back what has expired."""
        self._take_back(ask, queue.reap())

    def recover(self, ask: Callable[[Coroutine[Any, Any, Any]], Any], queue: Queue) -> None:
        """Take back what a process held that has died on this machine."""
        if self._dead:
            self._take_back(ask, queue.recover(self.rng.choice(self._dead)))

    def _take_back(
        self, ask: Callable[[Coroutine[Any, Any, Any]], Any], call: Coroutine[Any, Any, Any]
    ) -> None:
        before = set(self._stored("leases"))
        ask(call)
        for message_id in before - set(self._stored("leases")):
            name = message_id.decode()
            if name in self.ledger.stored:
                failed = message_id not in self._stored("due")
                self.ledger.taken_back(name, self.store_ms, failed)

    def _in(self, partition: int, name: str) -> Content:
        return self.server.stored().get(self.data.places[partition][name], NOTHING)

    def _stored(self, name: str) -> Content:
        """Of messages, in all partitions."""
        if self.data.partitions == 1:
            return self._in(0, name)
        partitions = range(self.data.partitions)
        return {id_: it for one in partitions for id_, it in self._in(one, name).items()}

    def _snapshot(self, partition: int) -> Snapshot:
        stored, places = self.server.stored(), self.data.places[partition]
        parked = places["parked:"]

        def of(name: str) -> Content:
            return stored.get(places[name], NOTHING)

        return Snapshot(
            due=of("due").keys(),
            taken=of("taken").keys(),
            leases=of("leases").keys(),
            delivered=of("delivered").keys(),
            failed=of("failed").keys(),
            parked={
                key.removeprefix(parked): content.keys()
                for key, content in stored.items()
                if key.startswith(parked)
            },
            claims=of("claims"),
            inflight={dest: int(count) for dest, count in of("inflight").items()},
            payloads=of("payloads"),
            progress=of("progress").keys(),
            parking=of("parking").keys(),
            limits=of("limits"),
            unreachable=of("unreachable"),
            opens=of("opens").keys(),
            withheld=of("withheld").keys() if b"withheld" in of("meta") else frozenset(),
        )

    def is_held_by(self, lease: Lease) -> bool:
        """Whether the claim under the message's id is that of the lease's process."""
        claim = self._stored("claims").get(lease.claimed.id.encode(), b"")
        return lease.replica.epoch.encode() in claim.split(b" ")

    def lease_end(self, message_id: str) -> int:
        """By the store's clock, ms; 0 if it is not leased."""
        return int(self._stored("leases").get(message_id.encode(), 0))

    def watch(self, partition: int, claim: Callable[[], Claim]) -> Claim:
        """A claim is made: it keeps to what destinations may get, also if its reply is lost."""
        before = self._in(partition, "claims")
        try:
            return claim()
        finally:
            after = self._in(partition, "claims")
            if after is not before and self.ledger.strict:
                now, latest = self.store_ms, self.ledger.latest
                objection = self.flow.objection(partition, before, after, now, latest)
                if objection:
                    raise Broken(objection)

    def knows_all(self, replica: Replica, partition: int) -> None:
        """A process knows of each claim in its name: none waits for its lease to run out."""
        known = {lease.claimed.id for lease in (*replica.leases, *replica.given_up)}
        epoch = replica.epoch.encode()
        for message_id, claim in self._in(partition, "claims").items():
            ours = epoch in claim.split(b" ") and message_id.decode() not in known
            if ours and self.ledger.strict:
                raise Broken(f"the claim of {message_id!r} is not known to who made it")

    def nothing_due(self, partition: int, told: bool) -> None:
        """A claim that has brought fewer than it might has left nothing that is due.

        What a rate or a probe lets go on meanwhile is left, if the claim has `told` of it.
        """
        if told and (self._ruled or self._flaky):
            return
        scores = self._in(partition, "due").values()
        if min(scores, default=self.store_ms + 1) <= self.store_ms:
            raise Broken("a claim has left messages that are due")

    def looks_again(self, partition: int, due_in: float | None) -> None:
        """A claim says when to look again at what it had no slot for."""
        withheld = self._in(partition, "withheld")
        if withheld and (due_in is None or due_in > LOOK_AGAIN) and self.ledger.strict:
            raise Broken("nobody looks again at what waits for a slot")

    # Steps.

    def _step(self) -> None:
        chance = self.rng.random()
        if chance < 0.15:
            self._call()
        elif chance < 0.75:
            self._replica_steps()
        elif chance < 0.88:
            self._wait()
        else:
            self._meet_fault()

    def _check(self) -> None:
        if self.server.changes == self._seen:
            return
        self._seen = self.server.changes
        for partition, most in enumerate(self.data.shares(self.concurrency)):
            wrong = findings(self._snapshot(partition), most)
            if wrong:
                raise Broken(str(wrong[0]))
        if self.loses_tail:
            self.images.append(self.server.image())

    def _replica_steps(self) -> None:
        acting = [one for one in self.replicas if one.acts]
        if not acting:
            return
        one = self.rng.choice(acting)
        # Who was stopped finds all its timers rung: nobody else comes between.
        for _ in range(self.rng.randrange(2, 7) if one.stopped else 1):
            if one.acts:
                self._let(one)
        one.stopped = False

    def _let(self, one: Replica) -> None:
        """A step of that process."""
        steps: list[Callable[[], None]] = [
            partial(one.look, claimer)
            for claimer in one.claimers
            if one.free() > 0 and self._calls_for_look(claimer)
        ]
        if ready := one.ready():
            steps += [lambda: one.send(ready[0]), lambda: one.send(ready[-1])]
        unsent = one.unsent()
        if unsent and any(claimer.missed for claimer in one.claimers):
            steps = []  # before the claim is asked for again, which is when it may do harm
        if unsent and (not steps or self.rng.random() < 0.1):
            steps += [partial(one.give_back, unsent[0])]
        if opened := one.opened():
            steps += [lambda: self._answer(one, opened[0]), lambda: self._answer(one, opened[-1])]
        if answered := one.answered():
            steps += [lambda: one.settle(answered), lambda: one.settle(answered[:1])]
        if self.rng.random() < 0.2:
            steps += [one.renew, one.recover]
        if steps:
            self.rng.choice(steps)()
        else:
            self._wait()

    def _calls_for_look(self, claimer: Claimer) -> bool:
        """Whether it would be woken by now, or at times without a reason."""
        rings = claimer.look_at <= self.now or self._due_now(claimer.partition)
        return rings or self.rng.random() < 0.1

    def _due_now(self, partition: int) -> bool:
        of = self._in
        scores = (*of(partition, "due").values(), *of(partition, "leases").values())
        return min(scores, default=self.store_ms + 1) <= self.store_ms

    def _wait(self) -> None:
        if self.rng.random() < 0.2:
            self.quick ^= {self.rng.choice(self._hosts)}
        self._advance(self.rng.choice((1, 50, 1000, 5_000, 20_000)))

    def _answer(self, replica: Replica, lease: Lease) -> None:
        if lease.offer.destination in self._unreachable:
            replica.answer(lease, None, "connect_error")
            return
        status = lease.offer.answer(lease.claimed.attempts + 1)
        replica.answer(lease, status or None)

    # Callers.

    def _call(self) -> None:
        calls = [self._offer, self._offer, self._repeat, self._cancel, self._get, self._list]
        calls += [self._restore, self._call_otherwise]
        if self._ruled:
            calls += [self._set_limit, self._set_limit, self._list_destinations]
        self.rng.choice(calls)()

    def _offer(self) -> None:
        """New messages in one call."""
        self._create([self._new_offer() for _ in range(self.rng.randint(1, self._crowd))])

    def _new_offer(self) -> Offer:
        rng, number = self.rng, len(self.ledger.offers)
        base = rng.choice(_OFFERED[rng.choice(self._hosts), rng.choice(DELAYS)])
        body = str(number).encode()
        spec = msgspec.structs.replace(base.spec, body=body)
        asked = Accepted(None, base.url, None, spec)
        if rng.random() < 0.3:  # at an instant instead, which may be past
            at = from_ms(self.now + rng.choice((-5000, 0, 3000, 60_000)))
            spec = msgspec.structs.replace(spec, delay_ms=None)
            asked = Accepted(None, base.url, at, spec)
        offer = Offer(number, rng.choice(IDS), asked, rng.choice(ANSWERS))
        self.ledger.offers.append(offer)
        return offer

    def _repeat(self) -> None:
        """What got no answer is asked again."""
        untold = [offer for offer in self.ledger.offers if not offer.told]
        if untold:
            self._create([self.rng.choice(untold)])

    def _create(self, offers: list[Offer]) -> None:
        places: dict[int, list[Offer]] = {}
        for offer in offers:
            places.setdefault(self._partition(offer.message_id), []).append(offer)
        for partition, here in places.items():
            self._create_in(partition, here)

    def _partition(self, message_id: str) -> int:
        return partition_of(message_id.encode(), self.data.partitions)

    def _create_in(self, partition: int, offers: list[Offer]) -> None:
        batch = [new_of(offer.message_id.encode(), offer.accepted) for offer in offers]
        kept = set(self._stored("payloads"))
        try:
            replies = at_once(self.messages._create(partition, batch))
        except (StoreUnavailable, StoreFull):
            for offer in offers:
                offer.told = not self.rules.answers_what_was_written
            return
        told = not self.strikes()
        for offer, reply in zip(offers, replies, strict=True):
            if isinstance(reply, DuplicateMessage):
                self.ledger.refused(offer)
            else:
                twice = offer is self.ledger.stored.get(offer.message_id)
                self._require(
                    not (twice and offer.message_id.encode() in kept), "one create, stored twice"
                )
                self.ledger.created(offer, to_ms(reply))
                offer.told = offer.told or told

    def _restore(self) -> None:
        """A message of another store, which may have been tried there."""
        offer = self._new_offer()
        due = self.now + self.rng.choice((-1000, 0, 4000))
        attempts, crashes = self.rng.choice(((0, 0), (0, 0), (2, 1)))
        message = Restorable(
            offer.message_id, due, None, due, offer.accepted, attempts, crashes, ()
        )
        try:
            [word] = at_once(self.data.archive.restore([message]))
        except Unavailable:
            return
        if word == "ok":
            self.ledger.created(offer, due)
            offer.retries, offer.reaps, offer.told = attempts, crashes, True
        else:
            self.ledger.refused(offer)

    def _call_otherwise(self) -> None:
        """A process that is set up with another number of partitions gets and changes nothing."""
        if b"partitions" not in self._in(0, "meta"):
            return  # whoever comes first says how new data are divided
        other, id_ = self._machine.other, self.rng.choice(IDS)
        messages, partition = other.messages(1), partition_of(id_.encode(), other.partitions)
        new = [new_of(id_.encode(), _OFFERED[HOSTS[0], DELAYS[0]][0])]
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: messages._create(partition, new),
            lambda: messages._create(partition, new),
            lambda: messages.get(id_),
            lambda: messages.get(id_),
            lambda: messages.cancel(id_),
            lambda: messages.cancel(id_),
            lambda: other.queues("other", 1, DAY)[partition].claim(1),
        ]
        before, trace = self.server.changes, self.server.trace
        self.server.trace = None  # which shows what is done with these data
        try:
            done = at_once(self.rng.choice(calls)())
        except (OtherPartitions, StoreUnavailable, StoreFull):
            done = None
        self.server.trace = trace
        nothing = self.server.changes == before
        refused = done is None or (isinstance(done, Claim) and done.reset and not done.messages)
        if not (nothing and refused):
            raise Broken("a process with another number of partitions was let in")

    def _set_limit(self) -> None:

        self._limit(self.rng.choice(self._hosts), self.rng.choice(LIMITS))

    def _limit(self, name: str, limits: Limits | None) -> None:
        with suppress(DestinationNotFound):
            at_once(self.destinations.set_limit(name, limits))
        self.flow.set_limit(name, limits, self.store_ms)

    def _list_destinations(self) -> None:
        pages = self._destination_pages()
        known = {destination_claimed(it).decode() for it in self._stored("claims").values()}
        for partition in range(self.data.partitions):
            known |= {name.decode() for name in self._in(partition, "parking")}
        names = sorted(found.name for found in pages)
        complete = names == sorted(known | self.flow.limits.keys())
        self._require(complete, "the list is not of the destinations with load or settings")
        for found in pages:
            claims = self._stored("claims").values()
            in_flight = sum(destination_claimed(claim).decode() == found.name for claim in claims)
            self._require(found.in_flight == in_flight, "a destination's requests are miscounted")
            same = found.limits == self.flow.limits.get(found.name)
            self._require(same, "a destination has other settings than were asked for")
            # A partition in which it has neither load nor settings says nothing of it.
            failures = self.flow.failures(found.name)
            counted = found.connect_failures == failures or self.data.partitions > 1
            self._require(counted, "a destination's failures to connect are miscounted")

    def _destination_pages(self) -> list[Destination]:
        """All pages of the list."""
        page = at_once(self.destinations.list(self.rng.choice((1, 2, 100))))
        rows = page.rows
        while page.cursor:
            page = at_once(self.destinations.list(1, page.cursor))
            rows += page.rows
        return rows

    def _next_up(self) -> str | None:
        """At times a message that is due while others are parked, or leased."""
        due = [id_ for id_, at in self._stored("due").items() if at <= self.store_ms]
        if due and self._stored("taken") and self.rng.random() < 0.5:
            return self.rng.choice(due).decode()
        return None

    def _id(self) -> str:
        """Mostly of a message that there is."""
        known = list(self.ledger.stored)
        return self.rng.choice(known if known and self.rng.random() < 0.8 else IDS)

    def _cancel(self) -> None:
        message_id = self._next_up() or self._id()
        offer = self.ledger.stored.get(message_id)
        try:
            at_once(self.messages.cancel(message_id))
        except MessageNotFound:
            self._require(not self.ledger.pending(message_id), "not found though it is pending")
        except MessageFinished:
            self._require(bool(offer and offer.ended), "finished though it is pending")
        except MessageInFlight:
            leased = message_id.encode() in self._stored("leases")
            self._require(leased, "in flight though nobody has it")
        except Unavailable:
            return
        else:
            self._require(offer is not None, "cancelled though it was never stored")
            if offer:
                self.ledger.cancelled(message_id)

    def _get(self) -> None:
        message_id = self._id()
        try:
            found = at_once(self.messages.get(message_id))
        except MessageNotFound:
            self._require(not self.ledger.pending(message_id), "not found though it is pending")
        except StoreUnavailable:
            return
        else:
            offer = self.ledger.stored.get(message_id)
            ended = offer.ended if offer else None
            state = found.state if found.state in ("delivered", "failed") else None
            self._require(state == ended, "its state is another than it was told")

    def _list(self) -> None:
        """All pages: each pending message once, the soonest first."""
        rows, cursor = [], None
        try:
            while True:
                page = self._machine.loop.run_until_complete(
                    self.messages.list(self.rng.choice((1, 2, 100)), cursor)
                )
                rows += page.rows
                cursor = page.cursor
                if cursor is None:
                    break
        except StoreUnavailable:
            return
        listed = [row.id for row in rows]
        pending = [name for name in self.ledger.stored if self.ledger.pending(name)]
        self._require(sorted(listed) == sorted(pending), "the list is not what is pending")
        dues = [row.due_at for row in rows]
        self._require(dues == sorted(dues), "the list is not in order")

    def _require(self, holds: bool, promise: str) -> None:
        if not holds and self.ledger.strict:
            raise Broken(promise)

    # Faults.

    def _meet_fault(self) -> None:
        faults = [
            *(self._kill, self._kill, self._pause, self._pause, self._cut_off, self._terminate),
            *(self._move_clock, self._restart_store, self._cut_off_store, self._fill, self._purge),
            self._trim,
        ]
        if self._flaky:
            faults += [self._lose_destination] * 4
        if self.damaged:
            faults += [self._tamper] * 6
        self.rng.choice(faults)()

    def _lose_destination(self) -> None:
        """Nobody can connect to it, or again everybody."""
        self.counts["unreachable destinations"] += 1
        self._unreachable ^= {self.rng.choice(self._hosts)}

    def _tamper(self) -> None:
        """Somebody has changed keys by hand, and has had them repaired."""
        self.counts["repairs"] += 1
        partition = self.rng.randrange(self.data.partitions)
        self.server.full = False
        self._damage(partition)  # once: a second time could make a message look finished
        if self.rng.random() < 0.7:
            self._go_on(partition)
        at_once(self._repair(partition))

    def _go_on(self, partition: int) -> None:
        """Whatever is damaged, no script raises, which would end the work of a partition."""
        self._advance(self.rng.choice((0, LEASE + NEXT_DUTIES, LEASE + NEXT_DUTIES)))
        queue = self.data.queues("another", self.concurrency, self._keep)[partition]
        at_once(queue.reap())
        at_once(queue.sweep())
        at_once(queue.recover(self.rng.choice(self.replicas).epoch))

    def _damage(self, partition: int) -> None:
        if self.rng.random() < 0.2:
            self._spoil(partition)
            return
        command, place = self.rng.choice((*TAKEN_OUT, *PUT_IN))
        puts_in = (command, place) in PUT_IN
        known = list(self._in(partition, "payloads" if puts_in else place))
        if known:
            score = ["1"] if puts_in else []
            name = self.data.places[partition][place]
            self.server.do(command, name, *score, self.rng.choice(known))

    def _spoil(self, partition: int) -> None:
        """What a field says is not what it should."""
        place, value = self.rng.choice(SPOILT)
        known = list(self._in(partition, place))
        if known:
            name = self.data.places[partition][place]
            self.server.do("HSET", name, self.rng.choice(known), value)

    async def _repair(self, partition: int) -> None:
        fsck = self.data.fsck(partition, self.concurrency, self._keep)
        async for checked in fsck.run(repair=True):
            assert checked.act

    def _kill(self) -> None:
        self.counts["crashes"] += 1
        self.kill(self.rng.choice(self.replicas))

    def _pause(self) -> None:
        self._stop_for(self.rng.choice((1000, LEASE // 2, LEASE + 2000)))

    def _stop_for(self, ms: int) -> None:
        """A process is held up, and does not know it."""
        self.counts["pauses"] += 1
        one = self.rng.choice(self.replicas)
        one.paused_until = self.now + ms
        one.duties_at = one.paused_until + NEXT_DUTIES
        one.stopped = True
        self._excuse(one)

    def _cut_off(self) -> None:
        self.counts["partitions"] += 1
        one = self.rng.choice(self.replicas)
        one.cut_until = self.now + self.rng.choice((1000, LEASE // 2, LEASE + 2000))
        self._excuse(one)

    def _terminate(self) -> None:
        acting = [one for one in self.replicas if one.acts]
        if acting:
            self.counts["stops"] += 1
            self.rng.choice(acting).stop()

    def _move_clock(self) -> None:
        self.counts["clock steps"] += 1
        reach = DAY // 24 if self.wild_clock else MARGIN // 2
        self.skew = self.rng.randint(-reach, reach)
        self._set_clock()
        self.flow.clock_moved(self.store_ms)

    def _restart_store(self) -> None:
        """It has forgotten at the most what it had not yet written to disk."""
        self.counts["store restarts"] += 1
        away = self.rng.choice(ABSENCES)
        if self.images:
            self.server.restore(self.rng.choice(self.images))
        if self.rng.random() < 0.5:
            self._stop_for(away)  # and does not notice
        self.server.cuts = True
        self._lose_store(away)
        self.server.restart()

    def _cut_off_store(self) -> None:
        """Nobody reaches it."""
        self.counts["outages"] += 1
        self._lose_store(self.rng.choice(ABSENCES))
        # Who was stopped, or asked nothing, did not notice, and may reap as soon as it goes on.
        known = (claimer.since for one in self.replicas for claimer in one.claimers)
        if any(since is not None for since in known):
            for one in self.replicas:
                self._excuse(one)

    def _lose_store(self, ms: int) -> None:
        self.server.down = True
        self._advance(ms)
        self.server.down = False

    def _fill(self) -> None:
        self.server.full = not self.server.full

    def _purge(self) -> None:
        for queue in self.data.queues("purger", self.concurrency, self._keep):
            at_once(queue.purge())

    def _trim(self) -> None:
        """The store is short of memory."""
        for queue in self.data.queues("purger", self.concurrency, self._keep):
            at_once(queue.trim(0))

    # The end.

    def _heal(self) -> None:
        self.faults = 0.0
        self.server.full = self.server.cuts = False
        for one in self.replicas:
            one.paused_until = one.cut_until = 0
        self._unreachable.clear()
        # Of all: a store that restarted with older data may have a pause that was lifted since.
        for name in self._hosts if self._ruled else ():
            limits = self.flow.limits.get(name)
            self._limit(name, msgspec.structs.replace(limits, paused=False) if limits else None)

    def _drain(self) -> None:
        """Everybody works until nothing is left; the oldest looks, as more would find no more."""
        for _ in range(ROUNDS):
            looking = self.replicas[0]
            claimers = [one for one in looking.claimers if self._has_more(one.partition)]
            for claimer in claimers:
                looking.look(claimer)
            for one in list(self.replicas):
                if one.leases:
                    self._finish(one)
            self._check()
            if not claimers:
                break
            rings = min(claimer.look_at for claimer in claimers)
            self._advance(max(1, rings - self.now))
        else:
            raise Broken("not all is sent, although all is healed")
        if not self.loses_tail:
            self.ledger.close()

    def _has_more(self, partition: int) -> bool:
        return bool(self._in(partition, "due") or self._in(partition, "taken"))

    def _finish(self, one: Replica) -> None:
        """It sends and settles what it holds, unless it dies of it."""
        one.give_up_ended()
        for lease in one.ready():
            if not one.dead:
                one.send(lease)
        if not one.dead:
            for lease in one.opened():
                self._answer(one, lease)
            one.settle(one.answered())

    def _leave_nothing(self) -> None:
        """When retention is over, nothing is stored of any message."""
        self._advance(31 * DAY)
        for name in self._hosts if self._ruled else ():
            self._limit(name, None)
        for queue in self.data.queues("sweeper", self.concurrency, self._keep):
            if self._ruled or self._flaky:
                at_once(queue.sweep())
            at_once(queue.claim(1))  # it looks at what earlier claims withheld
            at_once(queue.purge())
        left = self.server.stored().keys() - {keys.meta.encode() for keys in self.data.keys}
        if left:
            raise Broken(f"18: {left} are left of nothing")
