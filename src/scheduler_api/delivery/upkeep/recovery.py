"""Takes over the claims of processes of this machine that died; started by server.

Without it they would wait for the end of their leases, as those of another machine do.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from typing import Final

import structlog

from scheduler_api.delivery.upkeep import housekeeping
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.queue import Queue

log = structlog.get_logger()

LOOK_EVERY: Final = 1.0  # seconds between two looks at who died; a look costs microseconds


@asynccontextmanager
async def taking_over(processes: Processes, queues: Sequence[Queue]) -> AsyncIterator[None]:
    """Within, this process is known as alive, and takes over from those that are not."""
    try:
        processes.join()
    except OSError as error:
        log.warning("recovery_unavailable", reason=f"DATA_DIR cannot be written: {error}")
    looking = asyncio.create_task(_keep_looking(processes, queues))
    try:
        yield
    finally:
        await housekeeping.end([looking])
        processes.leave()


async def _keep_looking(processes: Processes, queues: Sequence[Queue]) -> None:
    async def once() -> None:
        await take_over(processes, queues)

    await housekeeping.repeat(once, LOOK_EVERY, first=0.0)


async def take_over(processes: Processes, queues: Sequence[Queue]) -> None:
    """Make the claims of every dead process due again. Raises: StoreUnavailable, OSError.

    A process is forgotten by the look that finds nothing of it: the last claim that it asked for
    may reach the store after its death.
    """
    with closing(processes.dead()) as dead:
        for epoch in dead:
            left = [await _recover(queue, epoch) for queue in queues]
            if not any(left):
                processes.forget(epoch)


async def _recover(queue: Queue, epoch: str) -> bool:
    """Whether anything was left of that process."""
    returned, failed = await queue.recover(epoch)
    if returned:
        log.warning("claims_recovered", returned=returned, epoch=epoch)
    housekeeping.tell_failed(failed)
    return bool(returned or failed)
