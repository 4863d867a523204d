"""All scripts: run twice, with invalid arguments, and on a full or broken server."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from redis import exceptions
from redis.asyncio import Redis

from scheduler_api.domain.destination import Limits
from scheduler_api.domain.errors import SchemaTooNew, StoreFull, StoreUnavailable
from scheduler_api.store.codec.record import pack_tail
from scheduler_api.store.connection.script_text import NAMES
from scheduler_api.store.connection.scripts import Scripts
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.keys import SCHEMA
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.support.factories import accepted
from tests.support.message_states import bring, everything, fill, outcome
from tests.support.store_clock import Clock
from tests.support.waiting import wait_until

Call = Callable[[Store], Awaitable[Any]]

WORKER_ID = "worker_id"
FENCE, STALE = 2, 9  # of the claims of `busy`, and another
TAIL = pack_tail(accepted())
LEASE = 15_000  # ms
DAY = 86_400_000  # ms
LOG = b"\x90"  # of no attempts

# A call of each script that changes all that it can, in the state that `busy` leaves.
CALLS: dict[str, tuple[Any, ...]] = {
    "create": (30_000, "new", "=1800000000000", TAIL, "newer", "+0", TAIL, "done", "+1", TAIL),
    "get": ("taken-0", CONCURRENCY),
    "list": (-1, "", 10),
    "cancel": ("waits", CONCURRENCY),
    "check_schema": (SCHEMA, 1, 1),
    "note_restart": (LEASE,),
    "claim": (100, LEASE, WORKER_ID, "nonce", CONCURRENCY, 0, 0, 0, 0, 0),
    "settle": (
        *(WORKER_ID, CONCURRENCY, 2),
        *("taken-0", FENCE, "delivered", DAY, "1 0", LOG, "yes", 7, 1),
        *("taken-1", FENCE, "failed", DAY, "1 0", LOG, "", 0, 1),
        *("taken-2", FENCE, "retry", 1_000, "1 0", LOG, "no", "", 0),
        *("taken-3", STALE, "delivered", DAY, "1 0", LOG, "yes", 7, 1),
    ),
    "release": (WORKER_ID, CONCURRENCY, "taken-0", FENCE, 1, "taken-1", STALE, 1),
    "renew": (WORKER_ID, LEASE, "taken-0", FENCE, "taken-1", STALE),
    "reap": (100, CONCURRENCY, 1, DAY, 10, -1),
    "recover": (100, CONCURRENCY, 1, DAY, 10, WORKER_ID, "0"),
    "purge": (100, DAY),
    "trim": (100, 0),
    "inspect": ("payloads", "", "0", 50),
    "read_claims": ("127.0.0.1:2",),
    "repair": ("", 2, "taken-0", "nobody", "delivered", DAY, "failed", DAY),
    "recount_claims": (CONCURRENCY, "127.0.0.1:2"),
    "restore": ("new", NOW, "", bytes(6) + TAIL, "", "done", NOW, NOW, TAIL, "1 0 retry 0\n"),
    "sweep": (100, CONCURRENCY + 2, DAY, 15_000),
    "list_destinations": ("inflight", "0", 100),
    "read_destinations": (CONCURRENCY, "127.0.0.1:2"),
    "set_limit": ("127.0.0.1:2", "9 0 0 [9,null,false]"),
}
CHANGE_NOTHING = {"get", "list", "inspect", "read_claims"} | {
    *("list_destinations", "read_destinations"),
    *("repair", "recount_claims", "check_schema"),  # all is well there
}
# They end claims: they run on data of a newer schema too, as nobody else can end these claims.
# Where the data have another number of partitions they find no claim of this process.
ENDINGS = {"settle", "release", "renew"}
# They run in a partition without a mark: one writes it, the other reports that it is missing.
UNMARKED_TOO = {"check_schema", "claim"}
# Where in those calls a number stands.
NUMBERS = [
    ("create", 0),
    *[("create", i) for i in (2, 5, 8)],
    ("get", 1),
    *[("list", i) for i in (0, 2)],
    ("cancel", 1),
    *[("check_schema", i) for i in range(2)],
    ("note_restart", 0),
    *[("claim", i) for i in (0, 1, 4, 5, 6, 7, 8, 9)],
    *[("settle", i) for i in (1, 2, 6, 15, 24, 33)],
    ("release", 1),
    ("renew", 1),
    *[("reap", i) for i in range(6)],
    *[("recover", i) for i in range(5)],
    *[("purge", i) for i in range(2)],
    *[("restore", i) for i in (1, 6)],
    ("inspect", 3),
    *[("repair", i) for i in (1, 5, 7)],
    ("recount_claims", 0),
    *[("sweep", i) for i in range(4)],
    ("list_destinations", 2),
    ("read_destinations", 0),
]


@pytest.fixture
async def busy(store: Store, scripts: Scripts, clock: Clock) -> None:
    """Four in flight with ended leases, two parked for their host, one waiting, one delivered."""
    await bring(store, "delivered", "done", payload=1)
    await store.queues[0].release([])
    names = [f"taken-{number}" for number in range(CONCURRENCY)] + ["parked-1", "parked-2"]
    await scripts.run("create", 0, *(part for name in names for part in (name, "+0", TAIL)))
    asked = (100, LEASE, WORKER_ID, "before", CONCURRENCY, 0, 0, 0, 0, 0)
    _, fence, *_ = await scripts.run("claim", *asked)
    assert fence == FENCE
    await store.messages.create("waits", accepted(webhookUrl="http://127.0.0.1:3/"))
    await clock.advance(2 * DAY)


def test_calls_in_this_file_cover_every_script() -> None:
    assert set(CALLS) == set(NAMES)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("name", NAMES)
async def test_script_that_runs_twice_changes_the_data_once(
    store: Store, redis: Redis, scripts: Scripts, name: str
) -> None:
    before = await everything(redis, store.keys[0])
    await scripts.run(name, *CALLS[name])
    once = await everything(redis, store.keys[0])
    assert (once == before) == (name in CHANGE_NOTHING)
    await scripts.run(name, *CALLS[name])
    assert await everything(redis, store.keys[0]) == once


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize(("name", "index"), NUMBERS)
async def test_script_with_an_argument_that_is_not_a_number_changes_nothing(
    store: Store, redis: Redis, scripts: Scripts, name: str, index: int
) -> None:
    args = list(CALLS[name])
    args[index] = "x"
    before = await everything(redis, store.keys[0])
    with pytest.raises(StoreUnavailable) as refused:
        await scripts.run(name, *args)
    assert isinstance(refused.value.__cause__, exceptions.ResponseError)
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("name", sorted(set(NAMES) - ENDINGS))
async def test_script_changes_nothing_in_data_of_a_newer_schema(
    store: Store, redis: Redis, scripts: Scripts, name: str
) -> None:
    await redis.hset(store.keys[0].meta, "schema", str(SCHEMA + 1))
    before = await everything(redis, store.keys[0])
    with pytest.raises(SchemaTooNew, match=f"schema {SCHEMA + 1}, .* supports only {SCHEMA};"):
        await scripts.run(name, *CALLS[name])
    assert await everything(redis, store.keys[0]) == before


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("name", sorted(ENDINGS))
async def test_script_that_ends_claims_works_on_data_of_a_newer_schema(
    store: Store, redis: Redis, scripts: Scripts, name: str
) -> None:
    await redis.hset(store.keys[0].meta, "schema", str(SCHEMA + 1))
    before = await everything(redis, store.keys[0])
    await scripts.run(name, *CALLS[name])
    assert await everything(redis, store.keys[0]) != before


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("name", ["create", "settle", "release"])
async def test_script_with_missing_arguments_changes_nothing(
    store: Store, redis: Redis, scripts: Scripts, name: str
) -> None:
    before = await everything(redis, store.keys[0])
    with pytest.raises(StoreUnavailable):
        await scripts.run(name, *CALLS[name][:-1])
    assert await everything(redis, store.keys[0]) == before


async def test_run_sends_a_script_again_that_the_server_forgot(store: Store, redis: Redis) -> None:
    await bring(store, "scheduled")
    await redis.script_flush()
    assert (await store.messages.get("a")).id == "a"


async def test_full_server_refuses_new_messages_and_runs_the_other_scripts(
    own_store: Store, own_redis: Redis
) -> None:
    claims = await fill(own_store)
    await own_store.messages.create("a", accepted(delay="1h"))
    await own_redis.config_set("maxmemory", 1)
    before = await everything(own_redis, own_store.keys[0])
    with pytest.raises(StoreFull):
        await own_store.messages.create("b", accepted())
    assert await everything(own_redis, own_store.keys[0]) == before
    assert await own_store.messages.count() == CONCURRENCY + 1
    await own_store.messages.cancel("a")
    assert await own_store.queues[0].renew(claims[:1]) == [True]
    assert await own_store.queues[0].settle(outcome(claims[0]))
    assert await own_store.queues[0].settle(outcome(claims[1], "retry"))
    await own_store.queues[0].release(claims[2:])
    assert len((await own_store.queues[0].claim(10)).messages) == CONCURRENCY - 2
    assert await own_store.queues[0].recover(own_store.worker_id) == (CONCURRENCY - 2, [])
    assert await own_store.queues[0].reap() == (0, [])
    assert await own_store.queues[0].purge() == 0
    assert await own_store.queues[0].sweep() == 0
    await own_store.destinations.set_limit("host.example", Limits(concurrency=1))


async def test_server_that_cannot_save_is_reported_as_full(
    own_store: Store, own_redis: Redis, server: EmbeddedStore
) -> None:
    await own_store.messages.create("a", accepted())
    await make_unable_to_save(own_redis, server.folder)
    with pytest.raises(StoreFull):
        await own_store.messages.create("b", accepted())
    with pytest.raises(StoreFull):  # and nothing is claimed that could not be settled
        await own_store.queues[0].claim(1)
    assert await own_store.messages.count() == 1
    await own_redis.config_set("save", "")  # or it would not end


async def make_unable_to_save(redis: Redis, folder: Path) -> None:
    """Put a folder where the server would write its dump."""
    block_the_dump(folder)
    await redis.config_set("save", "3600 1")
    await redis.bgsave()

    async def has_failed() -> bool:
        return bool((await redis.info("persistence"))["rdb_last_bgsave_status"] == "err")

    await wait_until("the server could not save", has_failed)


def block_the_dump(folder: Path) -> None:
    (folder / "dump.rdb" / "in the way").mkdir(parents=True)


async def test_read_only_server_is_reported_as_unavailable(
    own_store: Store, own_redis: Redis
) -> None:
    await own_store.messages.create("a", accepted())
    await own_redis.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable) as refused:
        await own_store.messages.create("b", accepted())
    assert isinstance(refused.value.__cause__, exceptions.ReadOnlyError)
    assert await own_store.messages.count() == 1


ASKED: dict[str, Call] = {
    "create": lambda store: store.messages.create("a", accepted()),
    "get": lambda store: store.messages.get("a"),
    "list": lambda store: store.messages.list(1, None),
    "count": lambda store: store.messages.count(),
    "cancel": lambda store: store.messages.cancel("a"),
    "note_restart": lambda store: store.queues[0].note_restart(),
    "claim": lambda store: store.queues[0].claim(1),
    "release": lambda store: store.queues[0].release([]),
    "renew": lambda store: store.queues[0].renew([]),
    "reap": lambda store: store.queues[0].reap(),
    "recover": lambda store: store.queues[0].recover("worker_id"),
    "purge": lambda store: store.queues[0].purge(),
    "sweep": lambda store: store.queues[0].sweep(),
    "list_destinations": lambda store: store.destinations.list(1),
    "set_limit": lambda store: store.destinations.set_limit("host.example", None),
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("name", ASKED)
async def test_missing_server_is_reported_as_unavailable(absent: Store, name: str) -> None:
    with pytest.raises(StoreUnavailable) as refused:
        await ASKED[name](absent)
    assert isinstance(refused.value.__cause__, exceptions.ConnectionError)
