"""Takes back claims whose lease has expired, unless an outage may be the reason."""

from datetime import timedelta

from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.delivery.timing import OUTAGE_SHARE
from scheduler_api.store.queue import Queue
from scheduler_api.telemetry import transitions


async def reap(queue: Queue, health: StoreHealth, lease: float) -> float | None:
    """Take back expired claims → None, or the seconds until that is allowed.

    After an outage, or a jump of the store's clock, every lease seems expired: processes that hold
    one get `lease` seconds to settle or renew. Raises: StoreUnavailable.
    """
    wait = max(lease - health.steady_for(), await queue.note_restart())
    if wait > 0:
        return wait
    returned, failed = await queue.reap(within=timedelta(seconds=lease * OUTAGE_SHARE))
    if returned:
        transitions.leases_reaped(returned)
    for message_id in failed:
        transitions.message_crashed(message_id)
    return None
