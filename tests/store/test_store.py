"""The store opened, external and embedded; the mark of its data written and read."""

import asyncio
import os
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest
from redis import exceptions
from redis.asyncio import Redis

from scheduler_api.domain.errors import (
    SchemaTooNew,
    SchemaTooOld,
    StoreStartFailed,
    StoreUnavailable,
)
from scheduler_api.settings import Settings
from scheduler_api.store.connection.client import close, connect, open_client
from scheduler_api.store.keys import OLDEST_READABLE, SCHEMA
from scheduler_api.store.store import Store, open_redis, open_store
from tests.support import engines
from tests.support.configured_store import server
from tests.support.lost_replies import lose_next_reply
from tests.support.valkey import client

PATIENCE = timedelta(seconds=1)


async def test_check_marks_a_new_data_set_with_the_schema(store: Store, redis: Redis) -> None:
    await store.check()
    assert await redis.hget(store.keys[0].meta, "schema") == str(SCHEMA).encode()


async def test_check_accepts_a_data_set_of_this_schema_unchanged(
    store: Store, redis: Redis
) -> None:
    await store.check()
    before = await redis.hgetall(store.keys[0].meta)
    await store.check()
    assert await redis.hgetall(store.keys[0].meta) == before


async def test_check_refuses_a_data_set_of_a_newer_version_and_does_not_change_it(
    store: Store, redis: Redis
) -> None:
    newer = str(SCHEMA + 1)
    await store.check()
    await redis.hset(store.keys[0].meta, "schema", newer)
    before = await redis.hgetall(store.keys[0].meta)
    with pytest.raises(SchemaTooNew, match=f"schema {newer}"):
        await store.check()
    assert await redis.hgetall(store.keys[0].meta) == before


async def test_check_refuses_data_that_this_version_cannot_read(store: Store, redis: Redis) -> None:
    older = str(OLDEST_READABLE - 1)
    await redis.hset(store.keys[0].meta, mapping={"schema": older, "partitions": "1"})
    before = await redis.hgetall(store.keys[0].meta)
    with pytest.raises(SchemaTooOld, match=f"schema {older}, .*export the messages"):
        await store.check()
    assert await redis.hgetall(store.keys[0].meta) == before


async def test_check_marks_data_that_have_no_mark(store: Store, redis: Redis) -> None:
    await redis.hset(store.keys[0].meta, mapping={"other": "kept"})
    await store.check()
    meta = await redis.hgetall(store.keys[0].meta)
    assert meta == {b"schema": str(SCHEMA).encode(), b"partitions": b"1", b"other": b"kept"}


async def test_claim_reports_data_that_lost_their_mark(store: Store, redis: Redis) -> None:
    await store.check()
    assert not (await store.queues[0].claim(1)).reset
    await redis.hdel(store.keys[0].meta, "schema")
    assert (await store.queues[0].claim(1)).reset


async def test_check_refuses_a_store_whose_durability_cannot_be_read(tmp_path: Path) -> None:
    async with server(tmp_path) as address, client(address) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-info")  # type: ignore[no-untyped-call]
        with pytest.raises(StoreUnavailable) as refused:
            await Store(redis).check()
    assert isinstance(refused.value.__cause__, exceptions.NoPermissionError)


async def test_open_redis_without_an_address_starts_and_stops_the_embedded_store(
    tmp_path: Path,
) -> None:
    async with open_redis(None, tmp_path, PATIENCE) as redis:
        assert isinstance(redis, Redis)
        address = redis.connection_pool.connection_kwargs["path"]
        assert await redis.ping()
    gone = connect(f"unix://{address}")
    with pytest.raises(exceptions.ConnectionError):
        await gone.ping()


async def test_open_store_stops_the_embedded_store_after_others_have_settled(
    tmp_path: Path,
) -> None:
    settings = Settings(data_dir=tmp_path, shutdown_grace=timedelta(0))
    async with AsyncExitStack() as owning, AsyncExitStack() as joined:
        await owning.enter_async_context(open_store(settings))
        other = await joined.enter_async_context(open_store(settings))
        stopping = asyncio.create_task(owning.aclose())
        await asyncio.wait([stopping], timeout=0.3)  # longer than the grace
        assert await other.messages.count() == 0
        assert not stopping.done()
        await joined.aclose()
        await asyncio.wait_for(stopping, 2)


async def test_open_redis_raises_if_the_folder_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreStartFailed):
        async with open_redis(None, tmp_path / "file", PATIENCE):
            pass


async def test_open_redis_uses_the_store_at_an_address_and_leaves_it_running(
    valkey: str, redis: Redis, prefix: str, tmp_path: Path
) -> None:
    async with open_redis(valkey, tmp_path, PATIENCE) as client:
        await client.set(prefix, "here")
    assert await redis.getdel(prefix) == b"here"
    assert not os.listdir(tmp_path)


async def test_client_does_not_repeat_a_command_whose_reply_was_lost(
    impatient: Redis, redis: Redis, prefix: str
) -> None:
    await impatient.get(prefix)
    await lose_next_reply(impatient, prefix)
    with pytest.raises(exceptions.TimeoutError):
        await impatient.incr(prefix)
    assert await redis.getdel(prefix) == b"1"


async def test_client_runs_a_command_after_a_dropped_connection_once(
    redis: Redis, valkey: str, prefix: str
) -> None:
    client = cast("Redis", open_client(valkey))
    await client.initialize()
    ours = await client.client_id(**engines.at(client, prefix))
    await redis.client_kill_filter(_id=str(ours), **engines.at(redis, prefix))
    await client.incr(prefix)
    assert await redis.getdel(prefix) == b"1"
    await close(client)
