"""Opens the store, outside or embedded, and holds its parts."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import quote

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from scheduler_api.domain.errors import SchemaTooNew
from scheduler_api.store.embedded import EmbeddedStore
from scheduler_api.store.heads import Heads
from scheduler_api.store.keys import SCHEMA, Keys
from scheduler_api.store.messages import Messages
from scheduler_api.store.queue import Queue
from scheduler_api.store.scripts import FAILURES, Scripts, unavailable

log = structlog.get_logger()

CONNECTIONS: Final = 16  # at the most; calls are gathered, so that few are needed
TIMEOUT: Final = 2.0  # seconds for a connection, for an answer, for a free connection


def connect(address: str) -> Redis:
    """A client that never runs a command a second time by itself, as redis-py does by default."""
    pool = BlockingConnectionPool.from_url(
        address,
        max_connections=CONNECTIONS,
        timeout=TIMEOUT,
        socket_timeout=TIMEOUT,
        socket_connect_timeout=TIMEOUT,
        retry=Retry(NoBackoff(), 0),
        health_check_interval=15,
    )
    return Redis.from_pool(pool)


class Store:
    """The messages, the queue, and the signal of new heads, over one Redis."""

    def __init__(
        self,
        redis: Redis,
        *,
        prefix: str = "scheduler",
        lease: timedelta = timedelta(seconds=15),
        concurrency: int = 64,
        keep_delivered: timedelta = timedelta(days=1),
        keep_failed: timedelta = timedelta(days=30),
        prelude: str | None = None,
    ) -> None:
        """`concurrency`: a destination's; `prelude`: see Scripts."""
        self.epoch = secrets.token_hex(8)
        self.keys = Keys(prefix)
        scripts = Scripts(redis, self.keys, prelude)
        self._redis = redis
        self.heads = Heads(redis, self.keys.wakeup)
        self.messages = Messages(scripts, self.heads, concurrency=concurrency)
        self.queue = Queue(
            scripts,
            self.heads,
            epoch=self.epoch,
            lease=lease,
            concurrency=concurrency,
            keep_delivered=keep_delivered,
            keep_failed=keep_failed,
        )

    async def check(self) -> None:
        """Mark a new data set, or read its mark. Raises: SchemaTooNew, StoreUnavailable."""
        try:
            await self._redis.hsetnx(self.keys.meta, "schema", str(SCHEMA))
            found = int(await self._redis.hget(self.keys.meta, "schema") or 0)
        except FAILURES as error:
            raise unavailable(error) from error
        if found > SCHEMA:
            raise SchemaTooNew(
                f"The data have schema {found}, this version knows {SCHEMA}; "
                "start the newer version of Scheduler API again."
            )


@asynccontextmanager
async def redis_at(address: str | None, folder: Path, patience: timedelta) -> AsyncIterator[Redis]:
    """A client of the Redis at `address`, or of the embedded store in `folder`.

    The embedded store stops with its last process; its owner waits for the others `patience`.
    Raises: StoreStartFailed.
    """
    embedded = None if address else EmbeddedStore(folder)
    if embedded:
        await embedded.start()
        address = f"unix://{quote(str(embedded.socket))}"
    redis = connect(address or "")
    try:
        yield redis
    finally:
        await redis.aclose()
        await redis.connection_pool.disconnect()
        if embedded:
            await embedded.stop(patience.total_seconds())
