"""A process with another number of partitions than the data reads and changes nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.domain.destination import Limits
from scheduler_api.domain.errors import OtherPartitions, StoreUnavailable
from scheduler_api.domain.message import Accepted
from scheduler_api.store.audit.dump import Restorable
from scheduler_api.store.connection.script_text import NAMES, lua_text
from scheduler_api.store.connection.scripts import scripts_of
from scheduler_api.store.keys import SCHEMA, Keys, partition_of
from scheduler_api.store.store import Store
from tests.conftest import NOW
from tests.store.connection.test_scripts import CALLS, ENDINGS, UNMARKED_TOO
from tests.support.factories import accepted
from tests.support.message_states import everything, outcome

OTHER = 3  # partitions, of the process that is set up wrongly
COMPARED = sorted(set(NAMES) - ENDINGS)

Call = Callable[[Store, str], Awaitable[Any]]


def later() -> Accepted:
    return accepted(delay="1d")


async def all_data(redis: Redis, prefix: str) -> dict[bytes, Any]:
    """Of each partition that either process may think of."""
    found: dict[bytes, Any] = {}
    for partition in range(OTHER):
        found |= await everything(redis, Keys(prefix, partition))
    return found


def id_in(partition: int) -> str:
    """One that the process with OTHER partitions searches for there."""
    return next(f"m{n}" for n in range(99) if partition_of(b"m%d" % n, OTHER) == partition)


# By the id that is asked for: in any partition.
ASKED: dict[str, Call] = {
    "create": lambda store, id_: store.messages.create(id_, later()),
    "get": lambda store, id_: store.messages.get(id_),
    "cancel": lambda store, id_: store.messages.cancel(id_),
    "list": lambda store, _: store.messages.list(1000, None),
    "count": lambda store, _: store.messages.count(),
    "restore": lambda store, id_: store.dump.restore(
        [Restorable(id_, NOW, NOW, NOW, later(), 0, 0, ())]
    ),
    "destinations": lambda store, _: store.destinations.get("127.0.0.1:2"),
    "set_limit": lambda store, _: store.destinations.set_limit("127.0.0.1:2", Limits(1)),
}


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize(("made", "asked"), [(1, OTHER), (OTHER, 1)])
async def test_script_refuses_data_with_another_number_of_partitions(
    redis: Redis, prefix: str, name: str, made: int, asked: int
) -> None:
    await Store(redis, prefix=prefix, partitions=made).messages.create(id_in(0), later())
    before = await all_data(redis, prefix)
    scripts, *_ = scripts_of(redis, [Keys(prefix, one) for one in range(asked)])
    with pytest.raises(OtherPartitions) as refused:
        await scripts.run(name, *CALLS[name])
    assert f"PARTITIONS={asked} does not match" in str(refused.value)
    assert f"set PARTITIONS={made}" in str(refused.value)
    assert await all_data(redis, prefix) == before


@pytest.mark.parametrize("name", sorted(set(COMPARED) - UNMARKED_TOO))
async def test_script_refuses_a_partition_that_the_data_do_not_have(
    redis: Redis, prefix: str, name: str
) -> None:
    await Store(redis, prefix=prefix).check()
    before = await all_data(redis, prefix)
    *_, last = scripts_of(redis, [Keys(prefix, one) for one in range(OTHER)])
    with pytest.raises(OtherPartitions):
        await last.run(name, *CALLS[name])
    assert await all_data(redis, prefix) == before


@pytest.mark.parametrize("partition", range(OTHER))
@pytest.mark.parametrize("name", ASKED)
async def test_call_to_any_partition_is_refused_and_changes_nothing(
    redis: Redis, prefix: str, name: str, partition: int
) -> None:
    await Store(redis, prefix=prefix).check()
    before = await all_data(redis, prefix)
    with pytest.raises(OtherPartitions):
        await ASKED[name](Store(redis, prefix=prefix, partitions=OTHER), id_in(partition))
    assert await all_data(redis, prefix) == before


async def test_claim_of_a_partition_that_the_data_do_not_have_requests_the_check_which_refuses_it(
    redis: Redis, prefix: str
) -> None:
    await Store(redis, prefix=prefix).check()
    before = await all_data(redis, prefix)
    wrong = Store(redis, prefix=prefix, partitions=OTHER)
    claim = await wrong.queues[2].claim(1)
    assert (claim.messages, claim.reset) == ([], True)
    with pytest.raises(OtherPartitions):
        await wrong.check(2)
    assert await all_data(redis, prefix) == before


@pytest.mark.parametrize("name", sorted(ENDINGS))
async def test_script_that_ends_claims_changes_nothing_in_data_with_another_number_of_partitions(
    redis: Redis, prefix: str, name: str
) -> None:
    store = Store(redis, prefix=prefix)
    await store.messages.create("a", accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    before = await all_data(redis, prefix)
    wrong = Store(redis, prefix=prefix, partitions=OTHER)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "settle": lambda: wrong.queues[0].settle(outcome(claimed)),
        "renew": lambda: wrong.queues[0].renew([claimed]),
        "release": lambda: wrong.queues[0].release([claimed]),
    }
    await calls[name]()
    assert await all_data(redis, prefix) == before
    assert await store.queues[0].settle(outcome(claimed))


@pytest.mark.parametrize("partitions", [1, OTHER])
async def test_create_in_a_new_data_set_marks_its_partition_and_the_first(
    redis: Redis, prefix: str, partitions: int
) -> None:
    store = Store(redis, prefix=prefix, partitions=partitions)
    await store.messages.create(id_in(partitions - 1), later())
    used = {0, partitions - 1}
    for partition in range(OTHER):
        marks = await redis.hmget(Keys(prefix, partition).meta, "schema", "partitions")
        number = str(partitions).encode()
        assert marks == ([str(SCHEMA).encode(), number] if partition in used else [None, None])
    assert await store.messages.count() == 1


async def test_check_of_a_marked_partition_does_not_need_the_first_one(
    redis: Redis, prefix: str
) -> None:
    await Store(redis, prefix=prefix, partitions=OTHER).check_all()
    await redis.set(Keys(prefix, 0).meta, "in the way of every script")
    store = Store(redis, prefix=prefix, partitions=OTHER)
    await store.check(1)
    await store.messages.create(id_in(1), later())


async def test_create_in_an_emptied_store_stores_the_message_and_logs_the_loss_once(
    redis: Redis, prefix: str
) -> None:
    store = Store(redis, prefix=prefix, partitions=OTHER)
    await store.check_all()
    await redis.delete(*(Keys(prefix, one).meta for one in range(OTHER)))
    with capture_logs() as logs:
        await store.messages.create(id_in(2), later())
        await store.messages.create(id_in(2) + "-", later())
    resets = [entry for entry in logs if entry["event"] == "store_reset"]
    assert resets == [{"event": "store_reset", "partition": 2, "log_level": "error"}]
    assert await redis.hget(Keys(prefix, 2).meta, "partitions") == str(OTHER).encode()


async def test_create_is_unavailable_if_the_store_loses_its_mark_each_time(
    redis: Redis, prefix: str
) -> None:
    unmarked = "if not partitions and not may_be_unmarked then"
    lua = lua_text("lib/data.lua")
    assert lua.count(unmarked) == 1
    libs = {"data": lua.replace(unmarked, "if not may_be_unmarked then")}
    store = Store(redis, prefix=prefix, libs=libs)
    with pytest.raises(StoreUnavailable):
        await store.messages.create("a", later())
    assert await Store(redis, prefix=prefix).messages.count() == 0
