"""Unparks messages that no settled attempt will unpark."""

from scheduler_api.delivery.timing import SWEEP_INTERVAL
from scheduler_api.delivery.upkeep.periodic import repeat
from scheduler_api.store.queue import Queue
from scheduler_api.telemetry import transitions


async def sweep(queue: Queue) -> None:
    """Unpark stranded messages, until cancelled: a backstop, as every change unparks."""

    async def step() -> None:
        if unparked := await queue.sweep():
            transitions.messages_unparked(unparked)

    await repeat(step, SWEEP_INTERVAL)
