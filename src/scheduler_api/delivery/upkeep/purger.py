"""Deletes finished messages whose retention is over."""

from scheduler_api.delivery.timing import PURGE_INTERVAL
from scheduler_api.delivery.upkeep.periodic import repeat
from scheduler_api.store.queue import CLAIM_BATCH, Queue


async def purge(queue: Queue) -> None:
    """Delete in batches until none is left; repeat until cancelled."""

    async def step() -> None:
        while await queue.purge() >= CLAIM_BATCH:
            pass

    await repeat(step, PURGE_INTERVAL)
