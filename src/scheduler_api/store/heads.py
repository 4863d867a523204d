"""Tells the dispatcher that a message became the head of a `due`, here or by another replica."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from scheduler_api.store.scripts import FAILURES

log = structlog.get_logger()

PING_EVERY = 5.0  # seconds without a word after which the subscription is asked whether it lives
RECONNECT_AFTER = 0.5  # seconds


class Heads:
    """New heads, announced to one listener; a lost one costs a safety poll, never a message."""

    def __init__(self, redis: Redis, channels: Sequence[str]) -> None:
        """`channels`: one a partition."""
        self._redis = redis
        self._partitions = {channel.encode(): n for n, channel in enumerate(channels)}
        self._listener: Callable[[int], None] | None = None

    def announce(self, partition: int) -> None:
        """A head was made in it, here or elsewhere."""
        if self._listener:
            self._listener(partition)

    async def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the partition at each new head, and at each (re)subscription.

        Until cancelled.
        """
        self._listener = listener
        try:
            while True:
                with suppress(*FAILURES):
                    await self._follow()
                await asyncio.sleep(RECONNECT_AFTER)
        finally:
            self._listener = None

    async def _follow(self) -> None:
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(*self._partitions)
            while True:
                await self._next(subscription)

    async def _next(self, subscription: PubSub) -> None:
        message = await subscription.get_message(timeout=PING_EVERY)
        if message is None:
            await subscription.ping()
        elif message["type"] in ("subscribe", "message"):
            self.announce(self._partitions[message["channel"]])
