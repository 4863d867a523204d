"""Messages that are parked without a reason are unparked."""

import asyncio

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.upkeep import sweeper
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.delivery.upkeep.conftest import running
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.waiting import wait_until


async def test_sweep_unparks_a_stranded_message_and_logs_it(
    store: Store, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.001)
    for number in range(CONCURRENCY + 2):
        await store.messages.create(f"m{number}", accepted())
    (first, *_) = (await store.queues[0].claim(CLAIM_BATCH)).messages
    await store.queues[0].settle(outcome(first))  # hands its slot to one whose record is then lost
    ids = await redis.zrange(f"{store.keys[0].base}due", 0, -1)
    await redis.hdel(f"{store.keys[0].base}payloads", *ids)
    await store.queues[0].claim(CLAIM_BATCH)

    with capture_logs() as logs:
        async with running(asyncio.create_task(sweeper.sweep(store.queues[0]))):
            await wait_until("the log", lambda: bool(logs))
    assert [(one["event"], one["unparked"]) for one in logs] == [("messages_unparked", 1)]
    assert len((await store.queues[0].claim(CLAIM_BATCH)).messages) == 1
