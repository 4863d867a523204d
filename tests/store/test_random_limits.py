"""Limits, rates, pauses and failures change at random while messages move; none stays parked."""

import random
from collections import Counter
from contextlib import suppress
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits, Rate
from scheduler_api.domain.errors import SchedulerError
from scheduler_api.domain.retry import Delivered, Retry
from scheduler_api.store.claims import Claimed, Outcome, Share
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.store.conftest import Replica
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import attempt
from tests.support.store_clock import Clock

HOSTS = [f"127.0.0.1:{port}" for port in (81, 82, 83)]
LEASE = 15_000  # ms
STEPS = 150
MOST_CALLS = 3_000  # until everything is delivered


class Run:
    """Several processes over one store, each step a choice by lot."""

    def __init__(self, stores: list[Store], clock: Clock, lot: random.Random) -> None:
        self.stores = stores
        self.clock = clock
        self.lot = lot
        self.held: list[tuple[Store, Claimed]] = []
        self.limits: dict[str, Limits] = {}
        self.created = 0

    @property
    def store(self) -> Store:
        return self.lot.choice(self.stores)

    async def create(self) -> None:
        for _ in range(self.lot.randint(1, 12)):
            url = f"http://{self.lot.choice(HOSTS)}/"
            delay = f"{self.lot.choice((0, 0, 0, 700))}ms"
            await self.store.messages.create(
                f"m{self.created}", accepted(webhookUrl=url, delay=delay)
            )
            self.created += 1

    async def claim(self) -> None:
        store = self.store
        before = Counter(message.url for _, message in self.held if message.permit)
        claim = await store.queues[0].claim(self.lot.choice((1, 3, 100)), 0.0, self.share(store))
        self.held += [(store, message) for message in claim.messages]
        for host in HOSTS:
            url, own = f"http://{host}/", self.limits.get(host, Limits())
            claimed = [message for message in claim.messages if message.url == url]
            new = sum(message.permit for message in claimed)
            most = own.concurrency or CONCURRENCY
            assert not (claimed and own.paused), "5: nothing is claimed for a paused destination"
            assert not new or before[url] + new <= most, "5: a claim never exceeds a limit"
            if new < len(claimed):
                assert before[url] + new == most, "5: a message waits only behind requests"
                assert not own.rate, "5: no message waits behind a rate"

    def share(self, store: Store) -> Share:
        """Half of the claims may bring messages that wait for a permit."""
        if self.lot.random() < 0.5:
            return Share()
        waiting = Counter(it.url for owner, it in self.held if owner is store and not it.permit)
        named = [part for host in HOSTS for part in (host.encode(), -2)]
        lines = [part for host in HOSTS for part in (host.encode(), waiting[f"http://{host}/"])]
        return Share(slots=64, free=64, open=named, lines=lines, queued=waiting.total())

    async def settle(self) -> None:
        for _ in range(min(len(self.held), self.lot.randint(1, 4))):
            store, message = self.held.pop(self.lot.randrange(len(self.held)))
            error = self.lot.choice((None, None, "connect_error", "connect_error", "timeout"))
            made = attempt(message.attempts + 1, status=None if error else 200, error=error)
            delay = timedelta(milliseconds=self.lot.choice((0, 300)))
            verdict = Outcome(message, made, Retry(delay) if error else Delivered())
            self.pass_on(store, message)
            await store.queues[0].settle(verdict)

    def pass_on(self, store: Store, ended: Claimed) -> None:
        """Give the permit of a message that has ended to one that waits, more often than not."""
        waiting = [it for owner, it in self.held if owner is store and it.url == ended.url]
        first = next((it for it in waiting if not it.permit), None)
        if first and ended.permit and self.lot.random() < 0.7:
            ended.permit, first.permit = False, True

    async def release(self) -> None:
        store = self.store
        own = [(owner, message) for owner, message in self.held if owner is store]
        await store.queues[0].release([message for _, message in own])
        self.held = [it for it in self.held if it[0] is not store]

    async def reap(self) -> None:
        await self.clock.advance(LEASE)
        await self.store.queues[0].reap()
        self.held = []

    async def cancel(self) -> None:
        with suppress(SchedulerError):  # there is none, or it is on the wire
            await self.store.messages.cancel(f"m{self.lot.randrange(self.created or 1)}")

    async def limit(self) -> None:
        host = self.lot.choice(HOSTS)
        rate = self.lot.choice((None, None, Rate(3, "s"), Rate(50, "s"), Rate(20, "m")))
        limits = Limits(self.lot.choice((None, 1, 2, 9)), rate, self.lot.random() < 0.3)
        await self.store.destinations.set_limit(host, limits)
        self.limits[host] = limits

    async def unlimit(self) -> None:
        for host in list(self.limits):
            await self.store.destinations.set_limit(host, None)
        self.limits.clear()

    async def wait(self) -> None:
        await self.clock.advance(self.lot.choice((1, 20, 100, 1_000, 61_000)))

    async def sweep(self) -> None:
        assert await self.store.queues[0].sweep() >= 0

    async def step(self) -> None:
        often = [self.create, self.claim, self.claim, self.settle, self.settle, self.wait]
        seldom = [self.release, self.reap, self.cancel, self.limit, self.unlimit]
        await self.lot.choice(often * 2 + seldom)()

    async def drain(self) -> None:
        """Deliver all, going only by what claims say of when to come again."""
        await self.unlimit()
        await self.release()
        await self.reap()
        store = self.stores[0]
        for _ in range(MOST_CALLS):
            claim = await store.queues[0].claim(100)
            for message in claim.messages:
                done = Outcome(message, attempt(message.attempts + 1), Delivered())
                assert await store.queues[0].settle(done)
            if not claim.messages:
                if claim.due_in is None:
                    return
                await self.clock.advance(max(1, round(claim.due_in * 1000)))


@pytest.mark.parametrize("seed", range(6))
async def test_set_limit_at_random_times_strands_no_message(
    redis: Redis, store: Store, replica: Replica, clock: Clock, seed: int
) -> None:
    run = Run([store, replica()], clock, random.Random(seed))  # noqa: S311
    for _ in range(STEPS):
        await run.step()
        await invariants.check(redis, store.keys[0], CONCURRENCY)
    await run.drain()
    assert await store.messages.count() == 0
