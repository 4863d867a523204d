"""Unparks messages that are parked without a reason."""

from scheduler_api.delivery.timing import SWEEP_INTERVAL
from scheduler_api.delivery.upkeep.periodic import repeat
from scheduler_api.store.queue import Queue
from scheduler_api.telemetry import transitions


async def sweep(queue: Queue) -> None:
    """Unpark such messages, until cancelled. There should be none, as every change unparks."""

    async def step() -> None:
        if unparked := await queue.sweep():
            transitions.messages_unparked(unparked)

    await repeat(step, SWEEP_INTERVAL)
