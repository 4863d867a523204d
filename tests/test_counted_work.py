"""What a message costs, counted instead of timed, so that it cannot grow unnoticed.

Counts that cannot vary are stated as they are. Whoever changes one says in the commit what the
change costs, or what it is good for.
"""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.store.claims import Claim
from scheduler_api.store.connection import client as client_module
from scheduler_api.store.store import Store
from tests.api.conftest import Api, Scheduler, application, opened
from tests.support.factories import LOOPBACK, accepted
from tests.support.message_states import outcome
from tests.support.receiver import Receiver
from tests.support.valkey import client, valkey_server
from tests.support.virtual_time import PACE, run_hastily
from tests.support.waiting import wait_until
from tests.support.work_counter import Commands, our_calls

MANY = 100  # messages in one call
CALLS = 2_000  # after which one object that stays of each shows beside those of a table that grew
PENDING = 20_000  # messages, of which the bytes are measured
PAYLOAD = {"text": "." * 270}  # with the rest of its JSON, 281 bytes
IDLE = 300  # seconds
LEASE = timedelta(seconds=15)
SLOTS = 8  # and connections, so that all are opened before anything is counted


@pytest.fixture
async def own(tmp_path: Path) -> AsyncIterator[tuple[Redis, Redis]]:
    """Two clients of a server of this test's own: one to be counted, one that counts."""
    async with (
        valkey_server(tmp_path) as server,
        client(server.address) as counted,
        client(server.address) as counting,
    ):
        yield counted, counting


@pytest.fixture
async def own_store(own: tuple[Redis, Redis]) -> Store:
    """On that server, which has been sent all scripts that are counted."""
    store = Store(own[0], concurrency=1_000)
    await store.check()
    await store.messages.create("first", accepted())
    await settle(store, await store.queues[0].claim(1))
    return store


@pytest.fixture
def commands(own: tuple[Redis, Redis]) -> Commands:
    """Counts what that server is told."""
    return Commands(own[1])


async def create(store: Store, count: int = MANY) -> None:
    """As so many requests of one loop turn."""
    await asyncio.gather(*(store.messages.create(f"m{n}", accepted()) for n in range(count)))


async def settle(store: Store, claim: Claim) -> None:
    """All of them as delivered."""
    settling = (store.queues[0].settle(outcome(message)) for message in claim.messages)
    assert all(await asyncio.gather(*settling))


# --- Commands of the store, those inside scripts included ---


async def test_a_create_alone(own_store: Store, commands: Commands) -> None:
    await commands.forget()
    await own_store.messages.create("a", accepted(delay="1h"))
    assert await commands.since() == Counter(
        evalsha=1,
        time=1,
        zrange=1,  # the head before
        hmget=2,  # the schema with the last fence, and whether there is such a message
        hset=1,
        zadd=1,
    )


async def test_a_create_that_others_must_hear_of(own_store: Store, commands: Commands) -> None:
    await commands.forget()
    await own_store.messages.create("a", accepted())
    found = await commands.since()
    assert (found.total(), found["spublish"]) == (8, 1)


async def test_a_hundred_creates_of_one_loop_turn(own_store: Store, commands: Commands) -> None:
    await commands.forget()
    await create(own_store)
    assert await commands.since() == Counter(
        evalsha=1,
        time=1,
        zrange=1,
        spublish=1,
        hmget=1 + 7,  # of 16 each: whether there are such messages
        hset=1,
        zadd=1,
    )


async def test_a_batch_of_a_hundred(own_store: Store, commands: Commands) -> None:
    await commands.forget()
    await own_store.messages.create_many([(f"m{n}", accepted()) for n in range(MANY)])
    found = await commands.since()
    assert (found.total(), found["evalsha"]) == (14, 1)


async def test_a_claim_that_finds_nothing(own_store: Store, commands: Commands) -> None:
    await own_store.messages.create("later", accepted(delay="1h"))
    await commands.forget()
    assert not (await own_store.queues[0].claim(MANY)).messages
    assert await commands.since() == Counter(
        evalsha=1,
        time=1,
        zrange=3,  # the heads of `due`, `opens`, `leases`
        hmget=1,  # the schema, and the last fence of any process
    )


async def test_a_claim_that_finds_nothing_while_another_process_sends(
    own_store: Store, commands: Commands
) -> None:
    await create(own_store, 1)
    await own_store.queues[0].claim(1)
    await commands.forget()
    assert not (await own_store.queues[0].claim(MANY)).messages
    found = await commands.since()
    assert (found.total(), found["hget"]) == (7, 1)  # its last nonce: a reply may have been lost


async def test_a_claim_of_one(own_store: Store, commands: Commands) -> None:
    await create(own_store, 1)
    await commands.forget()
    assert len((await own_store.queues[0].claim(MANY)).messages) == 1
    found = await commands.since()
    assert (found.total(), found["evalsha"]) == (22, 1)


async def test_a_claim_of_a_hundred(own_store: Store, commands: Commands) -> None:
    await create(own_store)
    await commands.forget()
    assert len((await own_store.queues[0].claim(MANY)).messages) == MANY
    assert await commands.since() == Counter(
        evalsha=1,
        time=1,
        exists=1,
        zrange=8,  # those of a claim of nothing, and what is due
        hget=1,
        hmget=1 + 11,  # the records by 1, 2, 4, 8 and then 16, and the progress of all
        hincrby=2,
        hset=2,
        zadd=2,
        zrem=1,
    )


async def test_a_settle_of_one(own_store: Store, commands: Commands) -> None:
    await create(own_store, 1)
    claim = await own_store.queues[0].claim(MANY)
    await commands.forget()
    await settle(own_store, claim)
    found = await commands.since()
    assert (found.total(), found["evalsha"]) == (20, 1)


async def test_a_settle_of_a_hundred(own_store: Store, commands: Commands) -> None:
    await create(own_store)
    claim = await own_store.queues[0].claim(MANY)
    await commands.forget()
    await settle(own_store, claim)
    assert await commands.since() == Counter(
        evalsha=1,
        time=1,
        exists=1,
        zrange=4,
        zpopmin=1,
        hmget=2,  # the claims; with one HSET: what the attempts came to
        hget=1,
        zrem=2,
        hdel=2,
        hincrby=1,  # of the one destination
        hset=2,
        zadd=1,
        zcard=1,  # the shelf
    )


# --- A life, and no life ---


@asynccontextmanager
async def dispatching(store: Store, lease: timedelta = LEASE) -> AsyncIterator[Dispatcher]:
    """A dispatcher of the store, that has looked and subscribed."""
    async with AsyncExitStack() as stack:
        transport = await stack.enter_async_context(open_transport(LOOPBACK))
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        dispatcher = Dispatcher(
            store.queues,
            store.notifier,
            sender,
            store.growth,
            store.check,
            slots=SLOTS,
            lease=lease,
        )
        dispatcher.start()
        stack.push_async_callback(dispatcher.drain, timedelta(seconds=1))
        yield dispatcher


Delivered = Callable[[], Awaitable[int]]


@pytest.fixture
def delivered(own: tuple[Redis, Redis], own_store: Store) -> Delivered:
    """How many are on the shelf of the delivered, asked past our own functions."""

    async def delivered() -> int:
        return int(await own[1].zcard(f"{own_store.keys[0].base}delivered"))

    return delivered


async def deliver(
    store: Store, receiver: Receiver, delivered: Delivered, name: str, count: int
) -> None:
    """From create to settle."""
    before = await delivered()
    new = accepted(webhookUrl=receiver.url)
    await store.messages.create_many([(f"{name}-{n}", new) for n in range(count)])

    async def all_of_them() -> bool:
        return await delivered() == before + count

    await wait_until("all delivered", all_of_them, 30)


async def test_the_life_of_a_message_takes_three_script_calls(
    own_store: Store, commands: Commands, receiver: Receiver, delivered: Delivered
) -> None:
    async with dispatching(own_store):
        await deliver(own_store, receiver, delivered, "before", 1)
        await commands.forget()
        await deliver(own_store, receiver, delivered, "a", 1)
        found = await commands.since()
    # A fourth, if its announcement comes by the subscription after the claim that it called for.
    assert found["evalsha"] in (3, 4)
    assert found["spublish"] == 1


def test_a_process_at_rest_asks_for_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "STORE_TIMEOUT", 1_000)  # seconds of that clock
    found, seconds = run_hastily(_rest(tmp_path))
    asked = found["evalsha"] + found["eval"] + found["ping"]
    assert asked <= 0.26 * seconds  # a look in 7.8 s, a ping in 10, purge and sweep in 171
    assert found.total() <= 1.0 * seconds  # those inside scripts included
    assert found["ping"] > 10  # the clock did run


async def _rest(folder: Path) -> tuple[Counter[str], float]:
    """What was asked, and in how many of the loop's seconds: a busy machine adds some."""
    loop = asyncio.get_running_loop()
    async with (
        valkey_server(folder) as server,
        client(server.address) as counted,
        client(server.address) as counting,
    ):
        store, commands = Store(counted), Commands(counting)
        await store.check()
        await store.messages.create_many([(f"m{n}", accepted(delay="1d")) for n in range(1_000)])
        # The alarm of the looks goes by another clock than the loop's: a shorter lease hurries it.
        async with dispatching(store, LEASE / PACE):
            await asyncio.sleep(20)
            await commands.forget()
            began = loop.time()
            await asyncio.sleep(IDLE)
            return await commands.since(), loop.time() - began


# --- Bytes ---


async def test_bytes_of_a_pending_message(own: tuple[Redis, Redis], own_store: Store) -> None:
    before = await used(own[1])
    for start in range(0, PENDING, 1_000):
        numbers = range(start, start + 1_000)
        new = accepted(delay="1d", payload=PAYLOAD)
        await own_store.messages.create_many([(f"bench-{n}", new) for n in numbers])
    each = (await used(own[1]) - before) / PENDING
    # The payload's 281, its URL's 21, some 25 of our own, and what a ZSET and a HASH take for an
    # entry; the number itself is that of this many entries, as tables grow by leaps.
    assert 400 < each < 470


async def used(redis: Redis) -> int:
    told = await redis.info("memory")
    return int(told["used_memory"])


# --- Calls of our own functions, and objects that stay ---


@pytest.fixture
def quiet() -> None:
    """Nothing is logged: what a log line costs is not counted here."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


async def post(api: Api, name: str, count: int) -> None:
    """One after another."""
    for number in range(count):
        body = {"id": f"{name}-{number}", "webhookUrl": "http://127.0.0.1:2/", "delay": "1h"}
        async with api.client.post("/messages", json=body | {"payload": {"a": 1}}) as response:
            assert response.status == 201


@pytest.fixture
async def own_api(own_store: Store) -> AsyncIterator[Api]:
    """The API over that store, whose code has run before."""
    scheduler = Scheduler()
    async with opened(application(own_store, scheduler), scheduler) as api:
        await post(api, "before", 20)
        yield api


async def test_our_functions_called_for_a_create_over_http(own_api: Api) -> None:
    with our_calls() as found:
        await post(own_api, "a", MANY)
    # 76, always, of which 3 join the head and body of the response, and 8 hold the limits of a
    # request; so that small changes pass, some more are let through.
    assert 45 < found.total() / MANY < 78


@pytest.mark.usefixtures("quiet")
async def test_our_functions_called_for_a_delivery(
    own_store: Store, receiver: Receiver, delivered: Delivered
) -> None:
    async with dispatching(own_store):
        await deliver(own_store, receiver, delivered, "before", 20)
        with our_calls() as found:
            await deliver(own_store, receiver, delivered, "a", MANY)
    # 90 with the create, and a few for each claim and settle more than these slots need; 20 of them
    # read the answer, which takes aiohttp's own reader 35.
    assert 72 < found.total() / MANY < 95


def blocks() -> int:
    """Objects that are alive."""
    gc.collect()
    return sys.getallocatedblocks()


async def test_nothing_stays_of_a_create(own_api: Api) -> None:
    before = blocks()
    await post(own_api, "a", CALLS)
    assert blocks() - before < 0.75 * CALLS


@pytest.mark.usefixtures("quiet")
async def test_nothing_stays_of_a_delivery(
    own_store: Store, receiver: Receiver, delivered: Delivered
) -> None:
    async with dispatching(own_store):
        await deliver(own_store, receiver, delivered, "before", 200)
        stayed = []
        for name in "abc":  # what a buffer or a cache grows by once is no leak
            receiver.requests.clear()
            before = blocks()
            await deliver(own_store, receiver, delivered, name, CALLS)
            receiver.requests.clear()
            stayed.append(blocks() - before)
    assert min(stayed) < 0.75 * CALLS
