"""Notifications that a partition has a new first due message, from any replica."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import structlog
from redis import exceptions
from redis.asyncio import RedisCluster
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterPubSub

from scheduler_api.store.connection.client import Client
from scheduler_api.store.connection.scripts import FAILURES

log = structlog.get_logger()

PING_INTERVAL: Final = 10.0  # seconds without a message before a PING checks the subscription
RECONNECT_DELAY: Final = 0.5  # seconds


class Notifier:
    """Passes notifications to one listener. A lost one delays a message until the next poll."""

    def __init__(self, redis: Client, channels: Sequence[str]) -> None:
        """`channels`: one per partition."""
        self._redis = redis
        self._partitions = {channel.encode(): n for n, channel in enumerate(channels)}
        # One subscription for all channels; in a cluster, each channel is on the node of its
        # partition.
        cluster = isinstance(redis, RedisCluster)
        self._subscriptions = [[channel] for channel in channels] if cluster else [list(channels)]
        self._listener: Callable[[int], None] | None = None

    def notify(self, partition: int) -> None:
        """Call the listener: the partition has a new first due message."""
        if self._listener:
            self._listener(partition)

    async def listen(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with the partition of each notification, until cancelled.

        Also called after each subscription, as notifications before it are lost.
        """
        self._listener = listener
        try:
            await asyncio.gather(*(self._keep_subscribed(each) for each in self._subscriptions))
        finally:
            self._listener = None

    async def _keep_subscribed(self, channels: Sequence[str]) -> None:
        while True:
            with suppress(*FAILURES):
                await self._receive(channels)
            await asyncio.sleep(RECONNECT_DELAY)

    async def _receive(self, channels: Sequence[str]) -> None:
        await self._redis.initialize()  # discovers the nodes of a cluster
        async with self._redis.pubsub() as subscription:
            await subscription.ssubscribe(*channels)
            own = node_subscription(subscription)
            while True:
                await self._next(own)

    async def _next(self, subscription: PubSub) -> None:
        message = await subscription.get_message(timeout=PING_INTERVAL)
        if message is None:
            await subscription.ping()  # pragma: no cover  tested; the tracer of 3.11 misses it
        elif message["type"] == "sunsubscribe":  # the partition moved to another node
            raise exceptions.ConnectionError("the channel is on another node now")
        elif message["type"] in ("ssubscribe", "smessage"):
            self.notify(self._partitions[message["channel"]])


def node_subscription(subscription: PubSub) -> PubSub:
    """The subscription at the node of a cluster's only channel; only that one can wait."""
    if isinstance(subscription, ClusterPubSub):
        [subscription] = subscription.node_pubsub_mapping.values()
    return subscription
