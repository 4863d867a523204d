"""Brings messages into any state by the calls that lead to it."""

from datetime import timedelta
from typing import Any, Literal

from redis.asyncio import Redis

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.retry import Decision, Delivered, Failed, Retry
from scheduler_api.store.claims import Claimed, Outcome
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.keys import Keys
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.support.factories import accepted

Verdict = Literal["delivered", "failed", "retry"]

PENDING = ("scheduled", "retrying", "delivering", "parked")
RETRY_AFTER = timedelta(minutes=1)  # delay of a message in state `retrying`


def attempt(number: int = 1, **fields: Any) -> Attempt:
    """An attempt with status 200, or with these fields."""
    made: dict[str, Any] = {
        "started_at": from_ms(NOW),
        "duration_ms": 5,
        "status": 200,
        "error": None,
        "response_excerpt": "seen",
        "lateness_ms": 1,
    }
    return Attempt(number, **made | fields)


def decided(verdict: Verdict, delay: timedelta = RETRY_AFTER) -> Decision:
    """The decision for a word."""
    if verdict == "retry":
        return Retry(delay)
    return Delivered() if verdict == "delivered" else Failed()


def outcome(
    claimed: Claimed, verdict: Verdict = "delivered", delay: timedelta = RETRY_AFTER
) -> Outcome:
    """The outcome of the next attempt of a claimed message."""
    return Outcome(claimed, attempt(claimed.attempts + 1), decided(verdict, delay))


async def bring(store: Store, state: str, message_id: str = "a", **fields: Any) -> None:
    """Create a message, due now unless `fields` say otherwise, and bring it into `state`."""
    if state == "parked":
        await fill(store)
    await store.messages.create(message_id, accepted(**fields))
    if state == "scheduled":
        return
    claim = await store.queues[0].claim(1)
    if state in ("delivering", "parked"):
        return
    verdict: Any = {"retrying": "retry"}.get(state, state)
    assert await store.queues[0].settle(outcome(claim.messages[0], verdict))


async def fill(store: Store, **fields: Any) -> list[Claimed]:
    """Claim messages until the destination is at its limit."""
    for number in range(CONCURRENCY):
        await store.messages.create(f"in-flight-{number}", accepted(**fields))
    return (await store.queues[0].claim(CONCURRENCY)).messages


async def everything(redis: Redis, keys: Keys) -> dict[bytes, Any]:
    """Key → content of all keys but the clock, to be compared."""
    names = [name async for name in redis.scan_iter(f"{keys.base}*", count=1000)]
    return {name: await _content(redis, name) for name in names if not name.endswith(b":clock")}


async def _content(redis: Redis, name: bytes) -> Any:
    # Not DUMP: its order of a hash changes without a write.
    kind = await redis.type(name)
    if kind == b"hash":
        return await redis.hgetall(name)
    if kind == b"set":
        return await redis.smembers(name)
    return await redis.zrange(name, 0, -1, withscores=True)
