"""`open_store`, which opens the external or the embedded store, and Store, which has its parts."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

from scheduler_api.settings import Settings
from scheduler_api.settings.memory_shares import memory_shares
from scheduler_api.store.audit.dump import Dump
from scheduler_api.store.audit.fsck import Fsck
from scheduler_api.store.connection import memory_warning
from scheduler_api.store.connection.client import Client, close, open_client
from scheduler_api.store.connection.durability import Durability
from scheduler_api.store.connection.notifier import Notifier
from scheduler_api.store.connection.scripts import FAILURES, failure, scripts_of
from scheduler_api.store.connection.uploads import Uploads
from scheduler_api.store.destinations import Destinations, share
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.keys import Keys
from scheduler_api.store.messages import Messages
from scheduler_api.store.queue import Queue
from scheduler_api.store.stored_bytes import Growth

# After their grace, other processes store the outcome of the requests that they cut off: the
# embedded store must not stop in that moment.
SETTLE_TIME: Final = timedelta(seconds=2)


class Store:
    """The parts of the store over one Redis: messages, queues, destinations, audit."""

    def __init__(
        self,
        redis: Client,
        *,
        prefix: str = "scheduler",
        partitions: int = 1,
        lease: timedelta = timedelta(seconds=15),
        concurrency: int = 64,
        keep_delivered: timedelta = timedelta(days=1),
        keep_failed: timedelta = timedelta(days=30),
        replica: bool = False,
        libs: Mapping[str, str] | None = None,
    ) -> None:
        """`concurrency`: of one destination, over all partitions; `replica`: see Durability.

        `libs`: see Scripts.
        """
        self.worker_id = secrets.token_hex(8)  # of this process, in its claims
        self.keys = tuple(Keys(prefix, partition) for partition in range(partitions))
        self.durability = Durability(redis, replica=replica)
        self._redis = redis
        self._scripts = scripts_of(redis, self.keys, libs, self.durability)
        scripts = self._scripts
        self._keep = {"delivered": keep_delivered, "failed": keep_failed}  # for each of FINISHED
        self._limit_shares = [share(concurrency, one, partitions) for one in range(partitions)]
        self.notifier = Notifier(redis, [keys.wakeup for keys in self.keys])
        self.growth = Growth()
        self.messages = Messages(
            scripts, self.notifier, Uploads(), self.growth, limit_shares=self._limit_shares
        )
        self.dump = Dump(scripts)
        self.destinations = Destinations(scripts, concurrency=concurrency)
        self.queues = tuple(
            Queue(
                partition,
                scripts[partition],
                self.notifier,
                worker_id=self.worker_id,
                lease=lease,
                limit_share=self._limit_shares[partition],
                keep=self._keep,
            )
            for partition in range(partitions)
        )

    def fsck(self, partition: int) -> Fsck:
        """A check of one partition."""
        return Fsck(
            self._redis,
            self.keys[partition],
            self._scripts[partition],
            limit_share=self._limit_shares[partition],
            keep=self._keep,
        )

    async def check_all(self) -> None:
        """Check all partitions, before anything is written to one of them. Raises: as `check`."""
        for partition in range(len(self.keys)):
            await self.check(partition)

    async def fullness(self) -> list[str]:
        """Warnings if the memory of the store is nearly full. Raises: StoreUnavailable."""
        return await memory_warning.warnings(self._redis)

    async def check(self, partition: int = 0) -> None:
        """Set the schema of a new or older partition, and check the store's durability.

        Raises: DataRefused, StoreUnavailable.
        """
        await self._scripts[partition].check_schema()
        try:
            await self.durability.refresh()
        except FAILURES as error:
            raise await failure(self._redis, error) from error


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The external store, or the embedded one; its data are not checked yet (Store.check_all).

    Raises: StoreStartFailed.
    """
    async with open_redis(
        settings.redis_address,
        settings.data_dir,
        settings.shutdown_grace + SETTLE_TIME,
        memory_shares(settings).store,
    ) as redis:
        yield Store(
            redis,
            prefix=settings.redis_prefix,
            partitions=settings.partitions,
            lease=settings.lease,
            concurrency=settings.destination_concurrency,
            keep_delivered=settings.keep_delivered,
            keep_failed=settings.keep_failed,
            replica=settings.durability == "replica",
        )


@asynccontextmanager
async def open_redis(
    address: str | None, directory: Path, patience: timedelta, max_memory: int = 0
) -> AsyncIterator[Client]:
    """A client of the Redis at `address`; without one, of the embedded store in `directory`.

    The embedded store is started, or joined if another process runs it. It stops with its last
    process: the one that started it waits up to `patience` for the others.
    `max_memory`: limit of its data, bytes; 0: no limit. Raises: StoreStartFailed.
    """
    embedded = None if address else EmbeddedStore(directory, max_memory=max_memory)
    if embedded:
        await embedded.start()
        address = f"unix://{quote(str(embedded.socket))}"
    redis = open_client(address or "")
    try:
        yield redis
    finally:
        await close(redis)
        if embedded:
            await embedded.stop(patience.total_seconds())
