"""What this process tells the store at the end of a claim: the outcome, or that nothing was sent.

While the store is away, both are repeated until it has answered, or the process stops.
"""

import asyncio
import random
from collections.abc import Sequence

import structlog

from scheduler_api.delivery.http.sender import Sent
from scheduler_api.delivery.store_health import StoreHealth
from scheduler_api.domain.errors import Unavailable
from scheduler_api.domain.retry import Delivered, Retry, decide
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.queue import CLAIM_BATCH, Queue
from scheduler_api.telemetry import transitions

log = structlog.get_logger()


class Outcomes:
    """Ends the claims of this process, of all partitions."""

    def __init__(self, health: Sequence[StoreHealth]) -> None:
        """`health`: one a partition."""
        self._health = health
        self._stopping = False

    def stop(self) -> None:
        """Make no further call after one that fails."""
        self._stopping = True

    async def settle(self, queue: Queue, claimed: Claimed, sent: Sent) -> None:
        """End a claim with what became of its request."""
        outcome = _outcome(claimed, sent)
        while True:
            try:
                settled = await queue.settle(outcome)
            except Unavailable as error:
                if self._stopping:
                    log.error("settle_failed", message_id=claimed.id)
                    return
                await self._wait_for_store(queue, error)
            else:
                _log_outcome(outcome, settled)
                return

    async def release(self, queue: Queue, claims: Sequence[Claimed]) -> None:
        """Give back claims of one partition that were not sent."""
        for first in range(0, len(claims), CLAIM_BATCH):
            await self._release(queue, claims[first : first + CLAIM_BATCH])

    async def _release(self, queue: Queue, claims: Sequence[Claimed]) -> None:
        # A claim whose lease expires counts as a crash, though no process died. If the lease is
        # lost, another process has the message, and this changes nothing.
        while True:
            try:
                await queue.release(claims)
            except Unavailable as error:
                if self._stopping:
                    return
                await self._wait_for_store(queue, error)
            else:
                return

    async def _wait_for_store(self, queue: Queue, error: Unavailable) -> None:
        await asyncio.sleep(self._health[queue.partition].note_failure(error))


def _outcome(claimed: Claimed, sent: Sent) -> Outcome:
    attempt = sent.attempt
    jitter = random.uniform(-1, 1)  # noqa: S311
    decision = decide(attempt.number, attempt.status, sent.retry_after, jitter)
    return Outcome(claimed, attempt, decision)


def _log_outcome(outcome: Outcome, settled: bool) -> None:
    message_id, attempt, decision = outcome.claimed.id, outcome.attempt, outcome.decision
    if not settled:
        transitions.settle_refused(message_id, attempt)
    elif isinstance(decision, Delivered):
        transitions.message_delivered(message_id, attempt)
    elif isinstance(decision, Retry):
        transitions.attempt_failed(message_id, attempt, decision.delay.total_seconds())
    else:
        transitions.message_failed(message_id, attempt)
