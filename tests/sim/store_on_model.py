"""The product's store over the modelled server.

One serves many schedules, one after another, as it takes long to make.
"""

import asyncio
import weakref
from collections.abc import Mapping
from datetime import timedelta

from scheduler_api.store.audit.dump import Dump
from scheduler_api.store.audit.fsck import Fsck
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.connection.scripts import scripts_of
from scheduler_api.store.connection.uploads import Uploads
from scheduler_api.store.destinations import Destinations, share
from scheduler_api.store.keys import FINISHED, Keys
from scheduler_api.store.messages import Messages
from scheduler_api.store.queue import Queue
from scheduler_api.store.stored_bytes import Growth
from tests.sim.lease import LEASE
from tests.sim.model import OTHER, PARTITIONS, Server
from tests.sim.replica import Rules


class StoreOnModel:
    """A modelled server, and the product's store for each number of partitions."""

    def __init__(self, spoilt: Mapping[str, str] | None = None, rules: Rules | None = None) -> None:
        """`spoilt`, `rules`: planted mistakes; see planted.py."""
        self.server = Server(spoilt)
        self.rules = rules or Rules()
        self.divided = {number: Divided(self.server, number) for number in PARTITIONS}
        self.other = Divided(self.server, OTHER)  # for a process that is set up wrongly
        self.loop = asyncio.new_event_loop()  # for calls that gather several
        weakref.finalize(self, self.loop.close)


class Divided:
    """The parts of a store with this many partitions."""

    def __init__(self, server: Server, partitions: int) -> None:
        self.server = server
        self.partitions = partitions
        self.keys = [Keys("scheduler", partition) for partition in range(partitions)]
        self.places = [
            {name.decode().removeprefix(keys.base): name for name in keys.all} for keys in self.keys
        ]
        self.scripts = scripts_of(server.client, self.keys)
        self.notifier = Notifier(server.client, [keys.wakeup for keys in self.keys])
        self.dump = Dump(self.scripts)

    def shares(self, concurrency: int) -> list[int]:
        """Each partition's share of a destination's limit."""
        return [share(concurrency, one, self.partitions) for one in range(self.partitions)]

    def queues(self, worker_id: str, concurrency: int, keep: int) -> list[Queue]:
        """The queues of a new process."""
        return [
            Queue(
                partition,
                self.scripts[partition],
                self.notifier,
                worker_id=worker_id,
                lease=timedelta(milliseconds=LEASE),
                limit_share=limit_share,
                keep=dict.fromkeys(FINISHED, timedelta(milliseconds=keep)),
            )
            for partition, limit_share in enumerate(self.shares(concurrency))
        ]

    def messages(self, concurrency: int) -> Messages:
        """As the api asks for them."""
        shares = self.shares(concurrency)
        return Messages(self.scripts, self.notifier, Uploads(), Growth(), limit_shares=shares)

    def destinations(self, concurrency: int) -> Destinations:
        """As the api asks for them."""
        return Destinations(self.scripts, concurrency=concurrency)

    def fsck(self, partition: int, concurrency: int, keep: int) -> Fsck:
        """The fsck of one partition."""
        return Fsck(
            self.server.client,
            self.keys[partition],
            self.scripts[partition],
            limit_share=self.shares(concurrency)[partition],
            keep=dict.fromkeys(FINISHED, timedelta(milliseconds=keep)),
        )
