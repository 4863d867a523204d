"""Tells the dispatcher that a message became the head of `due`, here or by another replica."""

import asyncio
from collections.abc import Callable
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

    def __init__(self, redis: Redis, channel: str) -> None:
        self._redis = redis
        self._channel = channel
        self._listener: Callable[[], None] | None = None

    def announce(self) -> None:
        """A head was made, here or elsewhere."""
        if self._listener:
            self._listener()

    async def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` at each new head, and at each (re)subscription, until cancelled."""
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
            await subscription.subscribe(self._channel)
            while True:
                await self._next(subscription)

    async def _next(self, subscription: PubSub) -> None:
        message = await subscription.get_message(timeout=PING_EVERY)
        if message is None:
            await subscription.ping()
        elif message["type"] in ("subscribe", "message"):
            self.announce()
