"""Deletes finished messages early when the store's memory is short."""

import random
from collections.abc import Sequence

from scheduler_api.delivery.timing import MAX_BACKOFF, TRIM_INTERVAL
from scheduler_api.delivery.upkeep.periodic import repeat
from scheduler_api.domain.errors import Unavailable
from scheduler_api.store.queue import Queue
from scheduler_api.store.stored_bytes import Growth
from scheduler_api.telemetry import transitions


async def trim(queues: Sequence[Queue], growth: Growth) -> None:
    """Check the memory each time `growth` has counted enough bytes, until cancelled."""

    async def step() -> None:
        await growth.check_due.wait()
        growth.reset()
        deleted = 0
        try:
            # In random order, so that no partition loses more than the others.
            for queue in random.sample(queues, len(queues)):
                while trimmed := await queue.trim():
                    deleted += trimmed
        except Unavailable:
            growth.check_due.set()
            raise
        finally:
            if deleted:
                transitions.finished_messages_forgotten(deleted)

    await repeat(step, TRIM_INTERVAL, first=0, retry=MAX_BACKOFF)
