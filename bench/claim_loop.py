"""A worker process that claims messages from an external store, as a dispatcher does.

python -m bench.claim_loop reads a line of JSON, a Claiming, and prints the ms of each claim.
"""

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import msgspec
import uvloop

from bench.external_store import ExternalStore
from bench.processes import Worker, answer
from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.retry import Delivered
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.connection.client import connect
from scheduler_api.store.queue import CLAIM_BATCH
from scheduler_api.store.store import Store


class Claiming(msgspec.Struct, frozen=True):
    """Number of claims, each of 100 messages that are already due."""

    address: str
    claims: int


def claim(store: ExternalStore, claims: int) -> list[float]:
    """Claim and settle in a worker process → ms of each claim."""
    with Worker("bench.claim_loop") as worker:
        return msgspec.convert(worker.ask(Claiming(store.address, claims)), list[float])


def _delivered(claimed: Claimed) -> Outcome:
    at = datetime.now(UTC)
    return Outcome(claimed, Attempt(claimed.attempts + 1, at, 1, 200, None, "", 0), Delivered())


async def _claim(claiming: Claiming) -> list[float]:
    redis = connect(claiming.address)
    # All messages have one destination: with its default limit, no claim would get 100 of them.
    store = Store(redis, concurrency=CLAIM_BATCH, keep_delivered=timedelta(0))
    times = []
    for _ in range(claiming.claims):
        began = time.perf_counter()
        claim = await store.queues[0].claim(CLAIM_BATCH)
        times.append(1000 * (time.perf_counter() - began))
        if len(claim.messages) < CLAIM_BATCH:
            raise RuntimeError(f"only {len(claim.messages)} messages were due")
        await asyncio.gather(*(store.queues[0].settle(_delivered(one)) for one in claim.messages))
    await redis.aclose()
    return times


if __name__ == "__main__":
    answer(uvloop.run(_claim(msgspec.json.decode(sys.stdin.buffer.readline(), type=Claiming))))
