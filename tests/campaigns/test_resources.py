"""10,000 deliveries that end in every way leave no memory, descriptor, task or entry behind."""

import asyncio
import gc
import os
import socket
import tracemalloc
from collections import Counter
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import structlog
from msgspec.structs import replace
from redis.asyncio import Redis

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.domain.accept import accept
from scheduler_api.domain.attempt import reached
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.errors import MessageFinished, MessageInFlight, MessageNotFound
from scheduler_api.server.garbage_collector import tune_garbage_collector
from scheduler_api.store.store import Store
from tests.support.attempt_endings import ENDINGS, TIMED, silent
from tests.support.factories import LOOPBACK, new_message
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(300)]

BODY: Final = 64 * 1024  # bytes of each message
SLOTS: Final = 128  # open requests
WARM: Final = 32  # deliveries of an ending before it is measured
EACH: Final = 460  # deliveries of an ending
EACH_TIMED: Final = 128  # deliveries of an ending that takes its whole timeout, a second
OPEN: Final = 32  # requests that are cut off at one time; one destination gets no more than a share
STOPS: Final = 8
PLACES: Final = 128  # unreachable destinations: each is paused after five failures in a row
LEFT: Final = 4 * 1024 * 1024  # bytes: a few of several hundred bodies
GROWN: Final = 128 * 1024 * 1024  # bytes that the process may grow by; the bodies are 640 MiB
OF_STORE: Final = 4  # descriptors of connections to the store, which are opened when needed
ANYWHERE: Final = EgressRules.parse("10.0.0.0/8, 127.0.0.0/8")  # to ask for; not to dial
# What is kept of a destination for hours, and not of a message.
OF_DESTINATIONS: Final = (b":unreachable", b":even", b":odd")


@dataclass(frozen=True)
class Taken:
    """The resources of the process and the store."""

    memory: int  # bytes that Python has allocated
    descriptors: int
    tasks: int
    entries: int  # of the store


class Outcomes:
    """Counts events of attempts instead of writing them."""

    def __init__(self) -> None:
        self.counts = Counter[int | str]()

    def __call__(
        self, _: object, __: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Count an event, and drop it."""
        if event.get("attempt") == 1:  # on a slow machine a retry may come before it is forgotten
            self.counts[event["status"] or event["error"]] += 1
        raise structlog.DropEvent


@dataclass
class Campaign:
    """One store, one transport, and the counted attempts."""

    redis: Redis
    store: Store
    sender: Sender
    outcomes: Outcomes
    made: int = 0  # messages

    @asynccontextmanager
    async def dispatching(self) -> AsyncIterator[None]:
        """A dispatcher that cuts off open requests at its end."""
        dispatcher = Dispatcher(
            self.store.queues,
            self.store.notifier,
            self.sender,
            self.store.growth,
            self.store.check,
            slots=SLOTS,
            lease=timedelta(seconds=5),
        )
        dispatcher.start()
        try:
            yield
        finally:
            await dispatcher.drain(timedelta(0))

    async def create(self, urls: list[str], count: int, timeout: str) -> list[str]:
        """Create so many due messages → their ids."""
        ids = [f"m{self.made + number}" for number in range(count)]
        for start in range(0, count, 16):
            batch = []
            for number in range(start, min(start + 16, count)):
                asked = new_message(webhookUrl=urls[number % len(urls)], timeout=timeout)
                new = accept(asked, "UTC", ANYWHERE.refusal_of_literal)
                batch.append((ids[number], replace(new, spec=replace(new.spec, body=bytes(BODY)))))
            await self.store.messages.create_many(batch)
        self.made += count
        return ids

    async def attempted(self, urls: list[str], count: int, timeout: str) -> Counter[int | str]:
        """Create, attempt and forget this many messages → count of each event."""
        before = self.outcomes.counts.copy()
        ids = await self.create(urls, count, timeout)
        total = before.total() + count
        await wait_until(
            "an attempt at each", lambda: self.outcomes.counts.total() == total, timeout=60
        )
        await self.forget(ids)
        return self.outcomes.counts - before

    async def forget(self, ids: list[str]) -> None:
        """Numbers of messages to be retried, and of finished ones."""
        for start in range(0, len(ids), 16):
            await asyncio.gather(*(self.cancel(each) for each in ids[start : start + 16]))
        while await self.store.queues[0].purge():
            pass

    async def cancel(self, message_id: str) -> None:
        """One, unless it has finished; what is being sent again is waited for."""

        async def cancelled() -> bool:
            try:
                await self.store.messages.cancel(message_id)
            except MessageInFlight:
                return False
            except (MessageFinished, MessageNotFound):
                pass
            return True

        await wait_until(f"{message_id} is cancelled", cancelled, timeout=60)

    async def entries(self) -> int:
        """Number of entries in all keys of the store but those of destinations."""
        total = 0
        async for name in self.redis.scan_iter(f"{self.store.keys[0].base}*", count=1000):
            if not name.endswith(OF_DESTINATIONS):
                hashed = await self.redis.type(name) == b"hash"
                total += await (self.redis.hlen(name) if hashed else self.redis.zcard(name))
        return total

    async def taken(self) -> Taken:
        """Now."""
        memory, _ = tracemalloc.get_traced_memory()
        descriptors = len(os.listdir("/proc/self/fd"))
        return Taken(memory, descriptors, len(asyncio.all_tasks()), await self.entries())

    async def flat(self, what: str, before: Taken, count: int) -> None:
        """Wait until these deliveries have left nothing, once their connections are closed."""

        async def given_back() -> bool:
            now = await self.taken()
            return (
                now.descriptors <= before.descriptors + OF_STORE
                and now.tasks <= before.tasks
                and now.entries <= before.entries
            )

        await wait_until(f"{what}: as before, which was {before}", given_back)
        after = await self.taken()
        left = after.memory - before.memory
        print(
            f"{count:6} {what:36} {left / 1024:+7.0f} KiB  descriptors {after.descriptors:3}  "
            f"tasks {after.tasks:2}  entries {after.entries}"
        )
        assert left < LEFT, what


@pytest.fixture
def outcomes() -> Outcomes:
    """A counter of events."""
    counting = Outcomes()
    structlog.configure(processors=[counting], wrapper_class=structlog.BoundLogger)
    return counting


@pytest.fixture
def collected_as_in_service() -> Iterator[None]:
    """Run the garbage collector as rarely as the service does."""
    before = gc.get_threshold()
    tune_garbage_collector()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, and no name server is asked."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


@pytest.fixture
def forgetful(redis: Redis, prefix: str) -> Store:
    """A store that keeps nothing of what has finished."""
    none = timedelta(0)
    return Store(redis, prefix=prefix, concurrency=SLOTS, keep_delivered=none, keep_failed=none)


@pytest.mark.usefixtures("collected_as_in_service", "no_name")
async def test_delivery_releases_all_that_it_takes(
    redis: Redis, forgetful: Store, outcomes: Outcomes
) -> None:
    before = resident()
    async with open_transport(LOOPBACK) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        campaign = Campaign(redis, forgetful, sender, outcomes)
        async with campaign.dispatching():
            for ending in ENDINGS:
                await end_so(campaign, ending)
        await cut_off(campaign)
    grown, total = resident() - before, outcomes.counts.total()
    print(f"{total:6} in {len(ENDINGS) + 1} ways; the process has grown by {grown >> 20} MiB")
    print(f"       {dict(outcomes.counts)}")
    assert grown < GROWN
    assert total >= 10_000


async def end_so(campaign: Campaign, ending: str) -> None:
    """Many deliveries of one ending, after a few that leave what stays once."""
    count, timeout = (EACH_TIMED, "1s") if ending in TIMED else (EACH, "60s")
    found = ENDINGS[ending][1]
    async with places(ending) as urls:
        await campaign.attempted(urls, WARM, timeout)
        before = await campaign.taken()
        assert await campaign.attempted(urls, count, timeout) == {found: count}
        await campaign.flat(ending, before, count)


@asynccontextmanager
async def places(ending: str) -> AsyncIterator[list[str]]:
    """URLs where attempts end so; many where a single one would be left alone soon."""
    place, found = ENDINGS[ending]
    no_answer = isinstance(found, str) and reached(None, found) is False
    async with AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(place()) for _ in range(PLACES if no_answer else 1)]
        yield [url.replace("nowhere", f"nowhere{number}") for number, url in enumerate(urls)]


async def cut_off(campaign: Campaign) -> None:
    """Requests that are open when the process stops."""
    async with silent() as url:
        await stop_with_open_ones(campaign, url)
        before = await campaign.taken()
        for _ in range(STOPS):
            await stop_with_open_ones(campaign, url)
        await campaign.flat("cut off at the stop", before, STOPS * OPEN)


async def stop_with_open_ones(campaign: Campaign, url: str) -> None:
    """Several at one time."""
    before = campaign.outcomes.counts["shutdown"]
    acquired = campaign.sender._transport._connector._acquired
    async with campaign.dispatching():
        ids = await campaign.create([url], OPEN, "60s")
        await wait_until("all are open", lambda: len(acquired) == OPEN)
    assert campaign.outcomes.counts["shutdown"] == before + OPEN
    await campaign.forget(ids)


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")
