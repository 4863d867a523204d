"""Renews the leases of this process, and aborts requests whose lease could not be renewed."""

from scheduler_api.delivery.leases import Leases
from scheduler_api.delivery.timing import ABORT_SHARE, MAX_BACKOFF, RENEW_SHARE
from scheduler_api.delivery.upkeep.periodic import repeat


async def renew(leases: Leases, lease: float) -> None:
    """Renew leases of `lease` seconds, until cancelled.

    After an outage soon again, as another process may reap then.
    """
    interval = lease * RENEW_SHARE

    async def step() -> None:
        await leases.renew(lease - interval)

    await repeat(step, interval, retry=min(interval, MAX_BACKOFF))


async def abort_expired(leases: Leases, lease: float) -> None:
    """Abort requests whose lease of `lease` seconds is about to end, until cancelled.

    Not in the task of `renew`, because a call of the store may hang.
    """

    async def step() -> None:
        leases.abort_expired()

    await repeat(step, lease * ABORT_SHARE)
