"""What must happen beside sending: renew leases, reap expired ones, purge records, sweep."""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final

import structlog

from scheduler_api.delivery.leases import Leases
from scheduler_api.domain.errors import Unavailable
from scheduler_api.store.queue import CLAIM_BATCH, Queue
from scheduler_api.store.stored_bytes import Growth

log = structlog.get_logger()

PURGE_EVERY: Final = 180.0  # seconds
SWEEP_EVERY: Final = 180.0  # seconds
TRIM_EVERY: Final = 0.1  # seconds at least between two looks at the store's memory
MAX_BACKOFF: Final = 1.0  # seconds between two tries to reach the store

# Of a lease, all four. What is renewed so often has four fifths of its lease left at the least; so
# an outage in which a lease can end is longer than SILENCE, and shows as such to whoever looks so
# often, also if it was stopped all the while and got no error. After a JUMP of the store's clock
# there is still time to renew.
RENEW_EVERY: Final = 0.1
LOOK_EVERY: Final = 0.55
JUMP: Final = 0.65
SILENCE: Final = 0.8


class StoreHealth:
    """Whether a partition's store answers, since when, how long to wait before asking again."""

    def __init__(self, partition: int = 0, silence: float = math.inf) -> None:
        """`silence`: seconds without an answer after which it may have been away, unnoticed."""
        self._partition = partition
        self._silence = silence
        self._answered_at = 0.0  # monotonic seconds
        self.since: float | None = None  # monotonic seconds; None: it does not answer
        self._failures = 0

    def found(self) -> None:
        """It answered."""
        now, was_away = time.monotonic(), self.since is None
        if was_away or now - self._answered_at > self._silence:
            self.since = now
        self._answered_at = now
        if was_away:
            self._failures = 0
            log.info("store_connected", partition=self._partition)

    def disturbed(self) -> None:
        """It answers, but something happened that leases may have suffered from."""
        self.since = time.monotonic()

    def lost(self, error: Exception) -> float:
        """It did not: seconds to wait, growing, with jitter."""
        is_news = self.since is not None or not self._failures
        self.since = None
        self._failures += 1
        if is_news:
            # The cause as it is: to show it is the log's affair, which does not raise.
            facts = {"reason": str(error), "cause": error.__cause__}
            log.warning("store_lost", partition=self._partition, **facts)
        wait = min(MAX_BACKOFF, 0.05 * 2.0 ** min(self._failures, 8))
        return wait * random.uniform(0.5, 1.0)  # noqa: S311

    def steady_for(self) -> float:
        """Seconds of undisturbed connection."""
        return 0.0 if self.since is None else time.monotonic() - self.since


async def reap(queue: Queue, connection: StoreHealth, lease: float) -> float | None:
    """Take back expired leases; None when done, else the seconds until that is allowed.

    After an outage, or a jump of the store's clock, every lease looks expired; whoever holds one
    gets a lease's time to settle.
    Raises: StoreUnavailable.
    """
    wait = max(lease - connection.steady_for(), await queue.note_restart())
    if wait > 0:
        return wait
    returned, failed = await queue.reap(within=timedelta(seconds=lease * SILENCE))
    if returned:
        log.warning("leases_reaped", returned=returned)
    tell_failed(failed)
    return None


def tell_failed(message_ids: Iterable[str]) -> None:
    """Of messages that outlived too many processes."""
    for message_id in message_ids:
        log.error("message_failed", message_id=message_id, error="process_died")


async def renew(leases: Leases, lease: float) -> None:
    """Keep the leases alive, until cancelled; soon after an outage, as others may reap then."""
    every = lease * RENEW_EVERY

    async def once() -> None:
        await leases.renew(lease - every)

    await repeat(once, every, again=min(every, MAX_BACKOFF))


async def give_up(leases: Leases, every: float) -> None:
    """Abort what outlives its lease, until cancelled; apart from `renew`, which may hang."""

    async def once() -> None:
        leases.give_up_ended()

    await repeat(once, every)


async def purge(queue: Queue) -> None:
    """Forget what is past its retention, until cancelled."""

    async def once() -> None:
        while await queue.purge() >= CLAIM_BATCH:
            pass

    await repeat(once, PURGE_EVERY)


async def trim(queues: Sequence[Queue], growth: Growth) -> None:
    """Make room for what grows at the cost of what is finished, until cancelled."""

    async def once() -> None:
        await growth.much.wait()
        growth.looked()
        forgotten = 0
        try:
            # In another order each time: none is always the one that forgets.
            for queue in random.sample(queues, len(queues)):
                while trimmed := await queue.trim():
                    forgotten += trimmed
        except Unavailable:
            growth.much.set()
            raise
        if forgotten:
            log.warning("finished_messages_forgotten", forgotten=forgotten, reason="memory")

    await repeat(once, TRIM_EVERY, first=0, again=MAX_BACKOFF)


async def sweep(queue: Queue) -> None:
    """Unpark whatever may be stranded, until cancelled: a backstop, as every change unparks."""

    async def once() -> None:
        if unparked := await queue.sweep():
            log.info("messages_unparked", unparked=unparked)

    await repeat(once, SWEEP_EVERY)


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel until all have ended: wait_for of Python 3.11, in redis-py, can swallow a cancel."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)


async def repeat(
    once: Callable[[], Awaitable[None]],
    every: float,
    first: float | None = None,
    again: float | None = None,
) -> None:
    """Do it each `every` seconds, with jitter, whatever it raises, until cancelled.

    `first`, `again`: seconds before the first time, and after the store was away, if others than
    before each.
    """
    wait = every if first is None else first
    while True:
        await asyncio.sleep(wait * random.uniform(0.9, 1.0))  # noqa: S311
        wait = every
        try:
            await once()
        except Unavailable as error:
            log.debug("upkeep_postponed", reason=str(error))
            wait = every if again is None else again
        except Exception:  # leases must be renewed, whatever else is broken
            log.exception("upkeep_error")
