"""Helpers for the tests of upkeep."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler_api.delivery.upkeep.periodic import cancel_all
from scheduler_api.store.claims import Claimed
from scheduler_api.store.store import Store
from tests.support.factories import accepted


@asynccontextmanager
async def running(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """Cancels the task when the block ends."""
    yield
    await cancel_all([task])


async def claim(store: Store, message_id: str) -> Claimed:
    """A message of that id, leased."""
    await store.messages.create(message_id, accepted())
    (claimed,) = (await store.queues[0].claim(1)).messages
    return claimed
