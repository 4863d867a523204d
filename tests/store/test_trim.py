"""Trim forgets finished messages early while the store is short of memory, and no others."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.upkeep.periodic import cancel_all
from scheduler_api.delivery.upkeep.trimmer import trim
from scheduler_api.domain.errors import MessageNotFound, StoreFull, StoreUnavailable
from scheduler_api.store.keys import FINISHED
from scheduler_api.store.queue import CLAIM_BATCH, KEEP_BELOW
from scheduler_api.store.store import Store
from scheduler_api.store.stored_bytes import CHECK_AFTER, Growth
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import PENDING, bring, outcome
from tests.support.store_clock import Clock
from tests.support.waiting import wait_until

MIB = 1024**2
LATER = {"delay": "1d", "payload": "x" * MIB}


async def there(store: Store, message_id: str) -> bool:
    try:
        await store.messages.get(message_id)
    except MessageNotFound:
        return False
    return True


@pytest.mark.parametrize("state", FINISHED)
async def test_trim_forgets_a_finished_message_of_a_store_short_of_memory(
    store: Store, state: str
) -> None:
    await bring(store, state)
    assert await store.queues[0].trim(0) == 1
    assert not await there(store, "a")
    assert await store.queues[0].trim(0) == 0


@pytest.mark.parametrize("state", PENDING)
async def test_trim_never_forgets_a_pending_message(store: Store, state: str) -> None:
    await bring(store, state)
    assert await store.queues[0].trim(0) == 0
    assert await there(store, "a")


@pytest.mark.parametrize("state", FINISHED)
async def test_trim_forgets_nothing_while_there_is_memory(store: Store, state: str) -> None:
    await bring(store, state)
    assert await store.queues[0].trim(100) == 0
    assert await there(store, "a")


async def test_trim_forgets_the_delivered_before_the_failed_and_the_oldest_first(
    store: Store, clock: Clock
) -> None:
    await bring(store, "failed", "failed")
    names = [f"{number}" for number in range(CLAIM_BATCH + 1)]
    for name in names:
        await bring(store, "delivered", name)
        await clock.advance(1)
    assert await store.queues[0].trim(0) == CLAIM_BATCH
    assert [await there(store, name) for name in ("0", names[-2], names[-1], "failed")] == [
        *(False, False),
        *(True, True),
    ]
    assert await store.queues[0].trim(0) == 2


@pytest.fixture
async def limited(own_store: Store, own_redis: Redis) -> AsyncIterator[Store]:
    """A store of 32 MiB."""
    await own_store.check()
    await own_redis.config_set("maxmemory", 32 * MIB)
    yield own_store
    await invariants.check(own_redis, own_store.keys[0], 64)


async def deliver(store: Store, count: int, name: str = "m") -> None:
    """So many of a megabyte, each as soon as it is created."""
    new = accepted(payload="x" * MIB)
    for number in range(count):
        await store.messages.create(f"{name}{number}", new)
        (claimed,) = (await store.queues[0].claim(1)).messages
        assert await store.queues[0].settle(outcome(claimed))


async def used(redis: Redis) -> int:
    return int((await redis.info("memory"))["used_memory"])


async def test_trim_ends_when_the_store_is_below_its_share_of_memory(
    limited: Store, own_redis: Redis
) -> None:
    await deliver(limited, 24)
    assert await used(own_redis) > KEEP_BELOW / 100 * 32 * MIB
    assert 0 < await limited.queues[0].trim() <= 20
    assert 0.1 * 32 * MIB < await used(own_redis) <= KEEP_BELOW / 100 * 32 * MIB
    assert not await there(limited, "m0")
    assert await there(limited, "m23")
    assert await limited.queues[0].trim() == 0


async def test_trim_of_a_store_full_of_finished_messages_makes_space_for_new_ones(
    limited: Store,
) -> None:
    with pytest.raises(StoreFull):
        await deliver(limited, 40)
    while await limited.queues[0].trim():
        pass
    await limited.messages.create("new", accepted(**LATER))


async def test_trim_of_a_store_full_of_pending_messages_deletes_none(limited: Store) -> None:
    stored = await limited.messages.create_many([(f"{n}", accepted(**LATER)) for n in range(40)])
    kept = await limited.messages.count()
    assert kept < len(stored)
    assert await limited.queues[0].trim() == 0
    assert await limited.messages.count() == kept


async def test_trim_of_a_store_without_a_limit_uses_the_memory_of_its_machine(
    own_store: Store, own_redis: Redis
) -> None:
    await own_store.check()
    await deliver(own_store, 4)
    assert await own_store.queues[0].trim() == 0
    assert (await own_redis.info("memory"))["total_system_memory"] > 0


async def test_growth_sets_check_due_after_enough_stored_bytes(own_store: Store) -> None:
    growth = own_store.growth
    assert growth.check_due.is_set(), "of what is there from before nothing is known"
    growth.reset()
    large = accepted(**LATER)
    for number in range(CHECK_AFTER // MIB - 1):
        await own_store.messages.create(f"{number}", large)
    assert not growth.check_due.is_set()
    await own_store.messages.create_many([("a", large), ("b", large)])
    assert growth.check_due.is_set()


async def test_create_in_a_full_store_makes_a_check_due(own_store: Store, own_redis: Redis) -> None:
    await own_store.check()
    own_store.growth.reset()
    await own_redis.config_set("maxmemory", 1)
    with pytest.raises(StoreFull):
        await own_store.messages.create("a", accepted())
    assert own_store.growth.check_due.is_set()


async def test_fullness_raises_if_the_store_is_unavailable(absent: Store) -> None:
    with pytest.raises(StoreUnavailable):
        await absent.fullness()


async def test_fullness_warns_of_a_store_that_is_nearly_full(
    own_store: Store, own_redis: Redis
) -> None:
    assert await own_store.fullness() == []
    await own_redis.config_set("maxmemory", await used(own_redis) + 64)
    (warning,) = await own_store.fullness()
    assert warning.startswith("the store uses ")
    assert "increase MAX_MEMORY" in warning
    await own_redis.config_set("maxmemory", 64 * MIB)
    assert await own_store.fullness() == []


async def test_dispatcher_trims_a_grown_store_and_logs_it_once(
    limited: Store,
) -> None:
    await deliver(limited, 27)
    with capture_logs() as logs:
        trimming = asyncio.create_task(trim(limited.queues, limited.growth))
        await wait_until("the event", lambda: len(logs) > 0)
        await cancel_all([trimming])
    (event,) = logs
    assert (event["event"], event["reason"]) == ("finished_messages_forgotten", "memory")
    assert event["forgotten"] > 0


async def test_dispatcher_logs_what_it_trimmed_before_a_partition_was_unavailable(
    limited: Store, absent: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "sample", lambda queues, _: list(queues))
    await deliver(limited, 27)
    with capture_logs() as logs:
        trimming = asyncio.create_task(trim([*limited.queues, *absent.queues], limited.growth))
        await wait_until("the event", lambda: "finished_messages_forgotten" in events(logs))
        await cancel_all([trimming])


def events(logs: Sequence[Mapping[str, Any]]) -> list[str]:
    return [entry["event"] for entry in logs]


async def test_dispatcher_checks_again_after_the_store_was_unavailable(absent: Store) -> None:
    class Counting(Growth):
        checks = 0

        def reset(self) -> None:
            super().reset()
            self.checks += 1

    growth = Counting()
    trimming = asyncio.create_task(trim(absent.queues, growth))
    await wait_until("the second check", lambda: growth.checks == 2)
    await cancel_all([trimming])
