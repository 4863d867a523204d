"""Takes back the claims of processes of this machine that have died.

Without it these claims would wait for the end of their leases, as those of another machine do.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing

import structlog

from scheduler_api.delivery.timing import RECOVERY_INTERVAL
from scheduler_api.delivery.upkeep.periodic import cancel_all, repeat
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.queue import Queue
from scheduler_api.telemetry import transitions

log = structlog.get_logger()


@asynccontextmanager
async def recovering(processes: Processes, queues: Sequence[Queue]) -> AsyncIterator[None]:
    """Register this process as alive, and recover claims of dead ones, until the block ends."""
    try:
        processes.join()
    except OSError as error:
        log.warning("recovery_unavailable", reason=f"DATA_DIR cannot be written: {error}")
    task = asyncio.create_task(_recover_repeatedly(processes, queues))
    try:
        yield
    finally:
        await cancel_all([task])
        processes.leave()


async def _recover_repeatedly(processes: Processes, queues: Sequence[Queue]) -> None:
    async def step() -> None:
        await recover_dead(processes, queues)

    await repeat(step, RECOVERY_INTERVAL, first=0.0)


async def recover_dead(processes: Processes, queues: Sequence[Queue]) -> None:
    """Make the claims of every dead process due again. Raises: StoreUnavailable, OSError.

    A process is forgotten by the first run that finds no claim of it: the last claim that it sent
    may reach the store after its death.
    """
    with closing(processes.dead()) as dead:
        for worker_id in dead:
            found = [await _recover(queue, worker_id) for queue in queues]
            if not any(found):
                processes.forget(worker_id)


async def _recover(queue: Queue, worker_id: str) -> bool:
    """Whether the process had claims in this partition."""
    returned, failed = await queue.recover(worker_id)
    if returned:
        transitions.claims_recovered(returned, worker_id)
    for message_id in failed:
        transitions.message_crashed(message_id)
    return bool(returned or failed)
