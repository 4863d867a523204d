"""Tells the dispatcher that a message became the head of a `due`, here or by another replica."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

import structlog
from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterPubSub

from scheduler_api.store.connection.client import Client
from scheduler_api.store.connection.scripts import FAILURES

log = structlog.get_logger()

PING_EVERY = 10.0  # seconds without a word after which the subscription is asked whether it lives
RECONNECT_AFTER = 0.5  # seconds


class Notifier:
    """Reports new heads of `due` to one listener; a lost report costs a safety poll."""

    def __init__(self, redis: Client, channels: Sequence[str]) -> None:
        """`channels`: one a partition."""
        self._redis = redis
        self._partitions = {channel.encode(): n for n, channel in enumerate(channels)}
        # One subscription for all; on a cluster each channel lives on the node of its partition.
        cluster = isinstance(redis, RedisCluster)
        self._together = [[channel] for channel in channels] if cluster else [list(channels)]
        self._listener: Callable[[int], None] | None = None

    def notify(self, partition: int) -> None:
        """A head was made in it, here or elsewhere."""
        if self._listener:
            self._listener(partition)

    async def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the partition at each new head, and at each (re)subscription.

        Until cancelled.
        """
        self._listener = listener
        try:
            await asyncio.gather(*(self._keep_following(each) for each in self._together))
        finally:
            self._listener = None

    async def _keep_following(self, channels: Sequence[str]) -> None:
        while True:
            with suppress(*FAILURES):
                await self._follow(channels)
            await asyncio.sleep(RECONNECT_AFTER)

    async def _follow(self, channels: Sequence[str]) -> None:
        await self._redis.initialize()  # a cluster's nodes are then known
        async with self._redis.pubsub() as subscription:
            await subscription.ssubscribe(*channels)
            own = of_one_node(subscription)
            while True:
                await self._next(own)

    async def _next(self, subscription: PubSub) -> None:
        message = await subscription.get_message(timeout=PING_EVERY)
        if message is None:
            await subscription.ping()  # pragma: no cover  tests see it; Python 3.11's tracer not
        elif message["type"] == "sunsubscribe":  # the partition moved to another node
            raise exceptions.ConnectionError("the channel has gone")
        elif message["type"] in ("ssubscribe", "smessage"):
            self.notify(self._partitions[message["channel"]])


def of_one_node(subscription: PubSub) -> PubSub:
    """What a cluster's subscription to one channel consists of: it alone waits for what comes."""
    if isinstance(subscription, ClusterPubSub):
        [subscription] = subscription.node_pubsub_mapping.values()
    return subscription
