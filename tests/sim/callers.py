"""What callers ask the API for: create, repeat, cancel, get, list, import, limits of destinations.

Each reply is compared with the ledger.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

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
from scheduler_api.store.claims import Claim
from scheduler_api.store.codec.record import from_ms, to_ms
from scheduler_api.store.keys import FINISHED, partition_of
from scheduler_api.store.messages import new_of
from tests.sim.ledger import REPEAT_WITHIN, Broken, Offer
from tests.sim.model import at_once
from tests.sim.options import DAY_MS, HOSTS
from tests.sim.permit_checker import counts, in_flight
from tests.support.factories import accepted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.sim.world import World

IDS: Final = tuple("abcdef")  # few, so that they are used again
MORE_IDS: Final = (*IDS, *"ghijklmnop")  # for messages that wait for permits
LIMITS: Final = (
    *(None, None, Limits(1), Limits(2), Limits(4), Limits(paused=True), Limits(1, paused=True)),
    *(Limits(rate=Rate(1, "s")), Limits(rate=Rate(6, "m")), Limits(2, Rate(20, "s"))),
)
URLS: Final = {  # spellings of one destination
    HOSTS[0]: ("http://127.0.0.1:2/",) * 4,
    HOSTS[1]: (
        *("http://h.example/", "http://h.example:80/", "https://H.example.:443/"),
        "https://h.example./",
    ),
}
LARGE, LARGE_EVERY = 1_100_000, 50  # bytes of a body; one of so many seeds has such
DELAYS: Final = ("0s", "0s", "1s", "20s")
_TEMPLATES: Final = {
    (host, delay): [accepted(webhookUrl=url, delay=delay) for url in URLS[host]]
    for host in HOSTS
    for delay in DELAYS
}
# Statuses that the receiver answers to the 1st, 2nd, … attempt, 0: the process dies of it. The
# last one repeats.
ANSWERS: Final = (
    *((200,),) * 24,
    *((500, 200), (503, 404, 204), (500, 410), (410,), (0, 200), (500, 0, 200)) * 2,
    *((0,), (500,)),
)


class Callers:
    """The callers of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._ledger = world.ledger
        # In some worlds a claim ends before all that is due, or that it has taken out of `parked`:
        # its reply would be too large.
        self.large = world.options.queues and world.seed % LARGE_EVERY == 0
        self._ids = MORE_IDS if world.options.queues else IDS
        self._require = world.checks.require
        self._messages = world.data.messages(world.options.concurrency)
        self._destinations = world.data.destinations(world.options.concurrency)

    def call(self) -> None:
        """One call of any kind."""
        calls = [self.create, self.create, self._repeat, self._cancel, self._get, self._list]
        calls += [self._restore, self._call_with_other_partitions]
        if self._world.options.sets_limits:
            calls += [self._set_any_limit, self._set_any_limit, self.list_destinations]
        if self._unparked():
            calls += [self._cancel] * 4
        self._rng.choice(calls)()

    # Create.

    def create(self) -> None:
        """Create new messages in one call."""
        count = self._rng.randint(1, self._world.options.max_batch)
        self._create([self._new_offer() for _ in range(count)])

    def _new_offer(self) -> Offer:
        rng, number = self._rng, len(self._ledger.offers)
        base = rng.choice(_TEMPLATES[rng.choice(self._world.options.hosts), self._delay()])
        body = str(number).encode().ljust(LARGE if self.large else 0)
        spec = msgspec.structs.replace(base.spec, body=body)
        asked = Accepted(None, base.url, None, spec)
        if rng.random() < 0.3:  # at an instant instead, which may be past
            at = from_ms(self._world.now + rng.choice((-5000, 0, 3000, 60_000)))
            spec = msgspec.structs.replace(spec, delay=None)
            asked = Accepted(None, base.url, at, spec)
        offer = Offer(number, rng.choice(self._ids), asked, rng.choice(ANSWERS))
        self._ledger.offers.append(offer)
        return offer

    def _delay(self) -> str:
        soon = self._world.options.queues and self._rng.random() < 0.7
        return DELAYS[0] if soon else self._rng.choice(DELAYS)

    def _repeat(self) -> None:
        """Repeat a create that got no answer, or whose message has finished."""
        offers = [offer for offer in self._ledger.offers if not offer.acknowledged]
        finished = [offer for offer in self._ledger.stored.values() if offer.ended]
        if finished and self._rng.random() < 0.5:
            offers = finished
            if self._rng.random() < 0.5:
                self._world.advance(REPEAT_WITHIN + 1)
        if offers:
            self._create([self._rng.choice(offers)])

    def _create(self, offers: list[Offer]) -> None:
        by_partition: dict[int, list[Offer]] = {}
        for offer in offers:
            partition = partition_of(offer.message_id.encode(), self._world.data.partitions)
            by_partition.setdefault(partition, []).append(offer)
        for partition, here in by_partition.items():
            self._create_in(partition, here)

    def _create_in(self, partition: int, offers: list[Offer]) -> None:
        batch = [new_of(offer.message_id.encode(), offer.accepted) for offer in offers]
        kept = set(self._world.stored("payloads"))
        try:
            replies = at_once(self._messages._create(partition, batch))
        except (StoreUnavailable, StoreFull):
            for offer in offers:
                offer.acknowledged = not self._world.rules.answers_what_was_written
            return
        answered = not self._world.faults.loses_reply()
        for offer, reply in zip(offers, replies, strict=True):
            if isinstance(reply, DuplicateMessage):
                self._ledger.refused(offer, self._world.store_ms)
            else:
                self._created(offer, to_ms(reply), kept, answered)

    def _created(self, offer: Offer, scheduled_ms: int, kept: set[bytes], answered: bool) -> None:
        now_ms, stored = self._world.store_ms, offer
        twice = offer is self._ledger.stored.get(offer.message_id)
        if twice and offer.message_id.encode() in kept:
            self._require(offer.is_new_again(now_ms), "one create, stored twice")
            stored = self._ledger.asked_again(offer)
        self._ledger.created(stored, scheduled_ms, now_ms)
        stored.acknowledged = offer.acknowledged or answered

    def _restore(self) -> None:
        """Import a message of another store, in which it may have been tried."""
        offer = self._new_offer()
        due = self._world.now + self._rng.choice((-1000, 0, 4000))
        asked = offer.accepted.due_at
        scheduled = due if asked is None else to_ms(asked)  # a repeat of the create asks for it
        attempts, crashes = self._rng.choice(((0, 0), (0, 0), (2, 1)))
        message = Restorable(
            offer.message_id, due, None, scheduled, offer.accepted, attempts, crashes, ()
        )
        try:
            [word] = at_once(self._world.data.dump.restore([message]))
        except Unavailable:
            return
        if word == "ok":
            self._ledger.created(offer, due, self._world.store_ms)
            offer.retries, offer.reaps, offer.acknowledged = attempts, crashes, True
        else:
            self._ledger.refused(offer, self._world.store_ms)

    # One message, or a list of them.

    def _any_id(self) -> str:
        """Mostly of a message that exists."""
        known = list(self._ledger.stored)
        return self._rng.choice(known if known and self._rng.random() < 0.8 else IDS)

    def _unparked(self) -> list[bytes]:
        """Messages that are due while others are parked: the next claim would get them."""
        world = self._world
        if not world.stored("parking"):
            return []
        return [id_ for id_, at in world.stored("due").items() if at <= world.store_ms]

    def _next_due_id(self) -> str | None:
        """Sometimes the id of a message that is due while others are parked or leased."""
        world = self._world
        due = [id_ for id_, at in world.stored("due").items() if at <= world.store_ms]
        if due and world.stored("taken") and self._rng.random() < 0.5:
            return self._rng.choice(due).decode()
        return None

    def _cancel(self) -> None:
        message_id = self._next_due_id() or self._any_id()
        offer = self._ledger.stored.get(message_id)
        try:
            at_once(self._messages.cancel(message_id))
        except MessageNotFound:
            self._require(not self._ledger.pending(message_id), "not found though it is pending")
        except MessageFinished:
            self._require(bool(offer and offer.ended), "finished though it is pending")
        except MessageInFlight:
            leased = message_id.encode() in self._world.stored("leases")
            self._require(leased, "in flight though nobody has it")
        except Unavailable:
            return
        else:
            self._require(offer is not None, "cancelled though it was never stored")
            if offer:
                self._ledger.cancelled(message_id)

    def _get(self) -> None:
        message_id = self._any_id()
        try:
            found = at_once(self._messages.get(message_id))
        except MessageNotFound:
            self._require(not self._ledger.pending(message_id), "not found though it is pending")
        except StoreUnavailable:
            return
        else:
            offer = self._ledger.stored.get(message_id)
            ended = offer.ended if offer else None
            state = found.state if found.state in FINISHED else None
            self._require(state == ended, "its state is not that of its last outcome")

    def _list(self) -> None:
        """All pages: each pending message once, the soonest first."""
        rows, cursor = [], None
        try:
            while True:
                page = self._world.store.loop.run_until_complete(
                    self._messages.list(self._rng.choice((1, 2, 100)), cursor)
                )
                rows += page.rows
                cursor = page.cursor
                if cursor is None:
                    break
        except StoreUnavailable:
            return
        listed = [row.id for row in rows]
        pending = [name for name in self._ledger.stored if self._ledger.pending(name)]
        self._require(sorted(listed) == sorted(pending), "the list is not what is pending")
        dues = [row.due_at for row in rows]
        self._require(dues == sorted(dues), "the list is not in order")

    # Destinations.

    def _set_any_limit(self) -> None:
        self.set_limit(self._rng.choice(self._world.options.hosts), self._rng.choice(LIMITS))

    def hold_up(self, name: str) -> None:
        """Pause a destination, or lower its limit, while messages wait for its permits."""
        self.set_limit(name, self._rng.choice((Limits(1), Limits(paused=True))))

    def set_limit(self, name: str, limits: Limits | None) -> None:
        """Set a destination's limits; None: delete them."""
        with suppress(DestinationNotFound):
            at_once(self._destinations.set_limit(name, limits))
        self._world.flow.set_limit(name, limits, self._world.store_ms)

    def list_destinations(self) -> None:
        """All pages: each destination with load or settings once."""
        world, flow = self._world, self._world.flow
        pages = self._destination_pages()
        busy = set[str]()
        for partition in range(world.data.partitions):
            for name, text in world.stored_in(partition, "inflight").items():
                if any(map(any, counts(text).values())):
                    busy.add(name.decode())
            busy |= {name.decode() for name in world.stored_in(partition, "parking")}
        listed, known = [found.name for found in pages], busy | flow.limits.keys()
        complete = len(set(listed)) == len(listed) and set(listed) == known
        self._require(complete, "the list is not of the destinations with load or settings")
        for found in pages:
            name = found.name.encode()
            texts = [world.stored_in(it, "inflight") for it in range(world.data.partitions)]
            permits = sum(in_flight(one.get(name, b"")) for one in texts)
            self._require(found.in_flight == permits, "a destination's requests are miscounted")
            same = found.limits == flow.limits.get(found.name)
            self._require(same, "a destination has other limits than were set")
            # A partition in which it has neither load nor settings says nothing of it.
            failures = flow.failures(found.name)
            counted = found.connect_failures == failures or world.data.partitions > 1
            self._require(counted, "a destination's failures to connect are miscounted")

    def _destination_pages(self) -> list[Destination]:
        """All pages of the list."""
        page = at_once(self._destinations.list(self._rng.choice((1, 2, 100))))
        rows = page.rows
        while page.cursor:
            page = at_once(self._destinations.list(1, page.cursor))
            rows += page.rows
        return rows

    # A process that is set up wrongly.

    def _call_with_other_partitions(self) -> None:
        """A process with another number of partitions reads and changes nothing."""
        world = self._world
        if b"partitions" not in world.stored_in(0, "meta"):
            return  # the first process decides into how many partitions new data are divided
        other, id_ = world.store.other, self._rng.choice(IDS)
        messages, partition = other.messages(1), partition_of(id_.encode(), other.partitions)
        new = [new_of(id_.encode(), _TEMPLATES[HOSTS[0], DELAYS[0]][0])]
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: messages._create(partition, new),
            lambda: messages._create(partition, new),
            lambda: messages.get(id_),
            lambda: messages.get(id_),
            lambda: messages.cancel(id_),
            lambda: messages.cancel(id_),
            lambda: other.queues("other", 1, DAY_MS)[partition].claim(1),
        ]
        before, trace = world.server.changes, world.server.trace
        world.server.trace = None  # which shows what is done with these data
        try:
            done = at_once(self._rng.choice(calls)())
        except (OtherPartitions, StoreUnavailable, StoreFull):
            done = None
        world.server.trace = trace
        nothing = world.server.changes == before
        refused = done is None or (isinstance(done, Claim) and done.reset and not done.messages)
        if not (nothing and refused):
            raise Broken("a process with another number of partitions was let in")
