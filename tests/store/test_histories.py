"""Histories: random calls of several processes, some of which die or never get a reply.

After every call the store must equal a model of it, and the invariants must hold.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, cast

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import SchedulerError
from scheduler_api.store.audit.invariants import Snapshot, findings
from scheduler_api.store.claims import Claim, Claimed, Share
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.connection.client import close, open_client
from scheduler_api.store.keys import Keys
from scheduler_api.store.messages import Messages
from scheduler_api.store.queue import MAX_CRASHES
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.support import engines
from tests.support.factories import accepted
from tests.support.invariants import snapshot
from tests.support.lost_replies import lose_next_reply
from tests.support.message_states import Verdict, outcome
from tests.support.store_clock import Clock, clock_lib
from tests.support.waiting import wait_until

HISTORIES = 8
CALLS = 120  # of one history
LEASE = 15_000  # ms
KEEP = 60_000  # ms; a record of what was delivered, or has failed
RETRY_AFTER = 5_000  # ms
LIMIT = 2  # requests open to one destination
QUEUED_PER_PERMIT = 3  # as in lib/queueing.lua
PROCESSES = 3
NAMES = "abcdefgh"
CLOCK = f"{Keys('scheduler').base}clock"
DESTINATIONS = ("127.0.0.1:3", "127.0.0.1:3", "127.0.0.1:4")
DELAYS = (0, 0, 0, 1_000, LEASE)  # ms
SPANS = (1, 999, 1_000, RETRY_AFTER, RETRY_AFTER, LEASE - 1, LEASE)  # ms
SIZES = (1, 3, 8)  # of a claim
VERDICTS: tuple[Verdict, ...] = ("delivered", "failed", "retry")
# What is called → how often, beside the others.
WEIGHTS: Final[Mapping[str, int]] = {
    "wait": 10,
    "create": 12,
    "cancel": 6,
    "get": 3,
    "claim": 18,
    "claim_unheard": 3,
    "settle": 18,
    "renew": 4,
    "release_and_leave": 3,
    "die": 3,
    "reap": 5,
    "purge": 3,
}


@dataclass
class Known:
    """A message in the model."""

    destination: str
    delay: int  # ms, as asked
    due: int  # ms
    state: Literal["waiting", "leased", "delivered", "failed"] = "waiting"
    attempts: int = 0
    crashes: int = 0
    until: int = 0  # ms; end of the lease, or of the record
    holder: tuple[str, int] = ("", 0)  # worker_id and fence


@dataclass
class Model:
    """What the store should hold."""

    now: int = NOW  # ms
    messages: dict[str, Known] = field(default_factory=dict)
    # Worker id and destination → permits and claims.
    counts: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)

    def among(self, state: str) -> set[str]:
        return {name for name, known in self.messages.items() if known.state == state}

    def soonest(self) -> list[str]:
        """Those that wait longest already: where a slot that opens goes."""
        waiting = sorted(self.among("waiting"), key=lambda name: (self.messages[name].due, name))
        return waiting[:2]

    def over(self, *states: str) -> set[str]:
        """Those in one of the states whose lease, or record, is over."""
        among = set[str]().union(*(self.among(state) for state in states))
        return {name for name in among if self.messages[name].until <= self.now}

    def free(self, name: str, destination: str, delay: int) -> bool:
        """Whether such a message may be created."""
        known = self.messages.get(name)
        if known is None:
            return True
        asked_again = (known.destination, known.delay) == (destination, delay)
        return known.state in ("delivered", "failed") and not asked_again

    def holds(self, worker_id: str, claimed: Claimed) -> bool:
        known = self.messages.get(claimed.id)
        mine = known is not None and known.holder == (worker_id, claimed.fence)
        return mine and claimed.id in self.among("leased")

    def held_by(self, worker_id: str) -> set[str]:
        return {name for name in self.among("leased") if self.messages[name].holder[0] == worker_id}

    def open_to(self, destination: str) -> int:
        """Requests that all processes may have open to a destination."""
        return sum(it[0] for key, it in self.counts.items() if key[1] == destination)

    def lease(self, worker_id: str, claims: Mapping[str, tuple[int, bool]], most: int) -> None:
        """A claim was answered with these; fails if it was too much, too early or too little.

        `claims`: id → fence, and whether it got a permit.
        """
        for name, (fence, permit) in claims.items():
            known = self.messages[name]
            assert known.state == "waiting", f"9: {name} is held"
            assert known.due <= self.now, f"10: {name} is early"
            known.state, known.holder, known.until = "leased", (worker_id, fence), self.now + LEASE
            key = (worker_id, known.destination)
            permits, count = self.counts.get(key, (0, 0))
            self.counts[key] = (permits + permit, count + 1)
        for name, (_, permit) in claims.items():
            destination = self.messages[name].destination
            assert self.open_to(destination) <= LIMIT, f"5: {self.counts}"
            assert permit or self.open_to(destination) == LIMIT, f"{name} waits without a reason"
        assert len(claims) <= most
        if len(claims) < most:
            for name in self.among("waiting"):
                known = self.messages[name]
                full = self.open_to(known.destination) == LIMIT
                assert full or known.due > self.now, f"6: {name} was passed over"

    def end(self, name: str, given_back: int) -> None:
        """The claim of a leased message ends."""
        key = (self.messages[name].holder[0], self.messages[name].destination)
        permits, count = self.counts.pop(key)
        if count > 1:
            self.counts[key] = (min(permits - given_back, count - 1), count - 1)

    def settle(self, name: str, verdict: Verdict, given_back: int) -> None:
        self.end(name, given_back)
        known = self.messages[name]
        known.attempts += 1
        known.due = self.now + RETRY_AFTER
        known.until = self.now + KEEP
        known.state = "waiting" if verdict == "retry" else verdict

    def take_back(self, taken: Set[str], reply: tuple[int, list[str]]) -> None:
        """Their processes are dead; fails unless the reply says what becomes of them."""
        given_up = set()
        for name in taken:
            known = self.messages[name]
            self.end(name, 0)
            known.crashes += 1
            known.state = "waiting"
            if known.crashes >= MAX_CRASHES:
                known.state, known.until = "failed", self.now + KEEP
                given_up.add(name)
        assert (reply[0], set(reply[1])) == (len(taken) - len(given_up), given_up)


class History:
    """The store, asked by some processes, and its model."""

    def __init__(self, chance: random.Random, asking: Redis, watching: Redis) -> None:
        self.chance, self.asking, self.watching = chance, asking, watching
        self.clock = Clock(watching, CLOCK)
        self.model = Model()
        self.stores = [self.open() for _ in range(PROCESSES)]
        self.claims: list[Claimed] = []  # that some process heard of, held or not
        # Worker id → the claims in a reply that it never heard, as `Model.lease` takes them.
        self.lost: dict[str, dict[str, tuple[int, bool]]] = {}

    def open(self) -> Store:
        keep = timedelta(milliseconds=KEEP)
        return Store(
            self.asking,
            lease=timedelta(milliseconds=LEASE),
            concurrency=LIMIT,
            keep_delivered=keep,
            keep_failed=keep,
            libs=clock_lib(self.clock.key),
        )

    @property
    def messages(self) -> Messages:
        return self.stores[0].messages

    def a_store(self) -> Store:
        return self.chance.choice(self.stores)

    def a_name(self) -> str:
        return self.chance.choice(NAMES)

    def a_claim(self) -> Claimed:
        """The newer, the likelier to be still held."""
        return self.chance.choice(self.claims[-self.chance.choice((2, 6, 30)) :])

    async def begin(self) -> None:
        await self.watching.flushdb()
        await self.clock.set(NOW)
        await self.stores[0].queues[0].claim(1)  # the script is then loaded

    async def call(self) -> str:
        """One of the calls: its name."""
        name = self.chance.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if self.claims or name not in ("settle", "renew", "release_and_leave"):
            await getattr(self, name)()
        return name

    async def wait(self) -> None:
        self.model.now += self.chance.choice(SPANS)
        await self.clock.set(self.model.now)

    async def create(self) -> None:
        names = self.chance.sample(NAMES, self.chance.randint(1, len(NAMES)))
        destination, delay = self.chance.choice(DESTINATIONS), self.chance.choice(DELAYS)
        message = accepted(webhookUrl=f"http://{destination}/", delay=delay / 1000)
        calls = (self.messages.create(name, message) for name in names)
        told = await asyncio.gather(*calls, return_exceptions=True)
        for name, answer in zip(names, told, strict=True):
            free = self.model.free(name, destination, delay)
            assert isinstance(answer, datetime) == free
            if free:
                self.model.messages[name] = Known(destination, delay, self.model.now + delay)

    async def cancel(self) -> None:
        name = self.chance.choice([self.a_name(), *self.model.soonest()])
        waits = name in self.model.among("waiting")
        assert await succeeds(self.messages.cancel(name)) == waits
        if waits:
            del self.model.messages[name]

    async def get(self) -> None:
        name = self.a_name()
        if known := self.model.messages.get(name):
            found = await self.messages.get(name)
            assert (found.attempts_made, found.crashes) == (known.attempts, known.crashes), "13"
            assert found.next_attempt_at in (None, from_ms(known.due))

    async def claim(self) -> None:
        store, most = self.a_store(), self.chance.choice(SIZES)
        claimed = (await store.queues[0].claim(most, 0.0, self.share(store))).messages
        claims = {one.id: (one.fence, one.permit) for one in claimed}
        lost, held = self.lost.pop(store.worker_id, {}), self.model.held_by(store.worker_id)
        again = {name: lost[name] for name in lost.keys() & held}
        if again or (lost and not claims):
            assert claims == again, "12: nonce"
            for name in claims:  # leased again, as its deadline counts from this call
                self.model.messages[name].until = self.model.now + LEASE
        else:
            self.model.lease(store.worker_id, claims, most)
            new = {one.destination for one in claimed if not one.permit}
            waiting = Counter(
                one.destination for one in [*self.queued(store), *claimed] if not one.permit
            )
            for destination in new:
                permits, _ = self.model.counts[store.worker_id, destination.decode()]
                assert waiting[destination] <= QUEUED_PER_PERMIT * permits, "too many wait"
        self.claims += claimed

    def share(self, store: Store) -> Share:
        """Half of the processes let messages wait for permits."""
        if self.chance.random() < 0.5:
            return Share()
        waiting = Counter(one.destination for one in self.queued(store))
        known = {destination.encode() for destination in DESTINATIONS}
        named = [part for name in sorted(known) for part in (name, -2)]
        lines = [part for name in sorted(known) for part in (name, waiting[name])]
        return Share(slots=64, free=64, open=named, lines=lines, queued=waiting.total())

    def queued(self, store: Store) -> list[Claimed]:
        """The messages that wait in a process for a permit."""
        held = (one for one in self.claims if self.model.holds(store.worker_id, one))
        return [one for one in held if not one.permit]

    async def claim_unheard(self) -> None:
        store, most = self.a_store(), self.chance.choice(SIZES)
        if store.worker_id in self.lost:
            return
        claim = store.queues[0].claim(most, 0.0, self.share(store))
        await unheard(self.asking, self.watching, claim)
        claims = (await self.snapshot()).claims
        told = {name.decode(): claim.split() for name, claim in claims.items()}
        leased = self.model.among("leased")
        new = {name: (int(it[0]), it[4] == b"1") for name, it in told.items() if name not in leased}
        self.model.lease(store.worker_id, new, most)
        self.lost[store.worker_id] = new

    async def settle(self) -> None:
        store, claimed, verdict = self.a_store(), self.a_claim(), self.chance.choice(VERDICTS)
        ended = outcome(claimed, verdict, timedelta(milliseconds=RETRY_AFTER))
        held = self.model.holds(store.worker_id, claimed)
        if held:
            self.pass_on(store, claimed)
        assert await store.queues[0].settle(ended) == held, "8"
        if held:
            self.model.settle(claimed.id, verdict, claimed.permit)

    def pass_on(self, store: Store, ended: Claimed) -> None:
        """Give the permit of a message that has ended to one that waits, more often than not."""
        queued = [one for one in self.queued(store) if one.destination == ended.destination]
        if ended.permit and queued and self.chance.random() < 0.7:
            ended.permit, queued[0].permit = False, True

    async def renew(self) -> None:
        store, claimed = self.a_store(), self.a_claim()
        held = self.model.holds(store.worker_id, claimed)
        assert await store.queues[0].renew([claimed]) == [held]
        if held:
            self.model.messages[claimed.id].until = self.model.now + LEASE

    async def release_and_leave(self) -> None:
        store, claimed = self.a_store(), self.a_claim()
        held = self.model.holds(store.worker_id, claimed)
        await store.queues[0].release([claimed])
        if held:
            self.model.end(claimed.id, claimed.permit)
            self.model.messages[claimed.id].state = "waiting"
        self.replace(store)

    async def die(self) -> None:
        store = self.a_store()
        self.replace(store)
        if self.chance.random() < 0.5:  # noticed by the kernel's lock, else by the lease
            taken = self.model.held_by(store.worker_id)
            self.model.take_back(taken, await self.a_store().queues[0].recover(store.worker_id))

    def replace(self, store: Store) -> None:
        self.stores[self.stores.index(store)] = self.open()

    async def reap(self) -> None:
        taken = self.model.over("leased")
        self.model.take_back(taken, await self.a_store().queues[0].reap())

    async def purge(self) -> None:
        over = self.model.over("delivered", "failed")
        assert await self.a_store().queues[0].purge() == len(over)
        for name in over:
            del self.model.messages[name]

    async def check(self) -> None:
        """The store is as the model says, and as it must be."""
        found = await self.snapshot()
        assert [str(each) for each in findings(found, LIMIT)] == []
        assert text(found.payloads) == set(self.model.messages)
        assert text(found.leases) == self.model.among("leased")
        assert text(found.finished["delivered"]) == self.model.among("delivered")
        assert text(found.finished["failed"]) == self.model.among("failed")
        assert counts_in(found.inflight) == self.model.counts
        for (worker_id, destination), (permits, _) in self.model.counts.items():
            holders = {
                one.id
                for one in self.claims
                if one.permit and one.destination.decode() == destination
                if self.model.holds(worker_id, one)
            }
            assert len(holders) <= permits, f"5: {worker_id} has more requests open than permits"

    async def snapshot(self) -> Snapshot:
        return await snapshot(self.watching, self.stores[0].keys[0])


def text(ids: Set[bytes] | Mapping[bytes, bytes]) -> set[str]:
    return {each.decode() for each in ids}


def counts_in(inflight: Mapping[bytes, bytes]) -> dict[tuple[str, str], tuple[int, int]]:
    """Worker id and destination → permits and claims."""
    counts = {}
    for destination, field_text in inflight.items():
        words = field_text.decode().split()
        for i in range(0, len(words), 3):
            numbers = (int(words[i + 1]), int(words[i + 2]))
            counts[words[i], destination.decode()] = numbers
    return counts


async def succeeds(call: Awaitable[object]) -> bool:
    with suppress(SchedulerError):
        await call
        return True
    return False


async def unheard(asking: Redis, watching: Redis, claim: Awaitable[Claim]) -> None:
    """A claim that the server has run, and whose reply the process never gets."""
    before = await script_calls(watching)
    await lose_next_reply(asking, CLOCK)
    task = asyncio.ensure_future(claim)

    async def has_run() -> bool:
        return await script_calls(watching) > before

    await wait_until("the claim has run", has_run)
    task.cancel()
    await asyncio.wait([task])


async def script_calls(redis: Redis) -> int:
    told = await redis.info("commandstats", **engines.at(redis, CLOCK))
    return int(told["cmdstat_evalsha"]["calls"])


@pytest.fixture
async def clients(valkey: str) -> AsyncIterator[tuple[Redis, Redis]]:
    """Two, in a separate database where there is one: each check scans all of it."""
    own = "" if "cluster" in engines.CHOSEN else f"{'&' if '?' in valkey else '?'}db=1"
    address = f"{valkey}{own}"
    asking, watching = (cast("Redis", open_client(address)) for _ in range(2))
    yield asking, watching
    for client in (asking, watching):
        await close(client)


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_store_equals_its_model_in_any_history(
    clients: tuple[Redis, Redis], seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    history = History(chance, *clients)
    await history.begin()
    for _ in range(CALLS):
        print(await history.call())  # shown when it fails
        await history.check()
