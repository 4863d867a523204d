"""The pool of connections to one server, and how a command is written."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from scheduler_api.store.connection import client as client_module
from scheduler_api.store.connection.connections import WRITTEN_AT_ONCE
from tests.support import engines
from tests.support.valkey import client, valkey_server


@pytest.fixture
async def single(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Redis]:
    """A client that may open one connection."""
    monkeypatch.setattr(client_module, "MAX_STORE_CONNECTIONS", 1)
    async with engines.running("embedded", tmp_path) as address, client(address) as redis:
        yield redis


async def take(redis: Redis) -> AbstractConnection:
    """A connection of the client's pool."""
    taken: AbstractConnection = await redis.connection_pool.get_connection()  # type: ignore[no-untyped-call]
    return taken


async def test_get_connection_returns_the_released_connection_again(single: Redis) -> None:
    first = await take(single)
    await single.connection_pool.release(first)
    again = await take(single)
    assert again is first
    await single.connection_pool.release(again)


async def test_calls_wait_in_order_while_all_connections_are_in_use(single: Redis) -> None:
    taken = await take(single)
    ended: list[int] = []

    async def call(number: int) -> None:
        await single.ping()
        ended.append(number)

    calls = [asyncio.create_task(call(number)) for number in range(3)]
    await asyncio.sleep(0.01)
    assert ended == []
    await single.connection_pool.release(taken)
    await asyncio.sleep(0)
    await call(3)  # a free connection does not let it overtake the calls that wait
    await asyncio.gather(*calls)
    assert ended == [0, 1, 2, 3]


async def test_get_connection_raises_after_the_timeout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_STORE_CONNECTIONS", 1)
    monkeypatch.setattr(client_module, "STORE_TIMEOUT", 0.2)
    async with engines.running("embedded", tmp_path) as address, client(address) as redis:
        taken = await take(redis)
        with pytest.raises(RedisConnectionError, match="No connection available"):
            await take(redis)
        await redis.connection_pool.release(taken)
        await redis.ping()


async def test_failed_connect_leaves_the_connection_to_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "MAX_STORE_CONNECTIONS", 1)
    async with client(f"unix://{tmp_path}/nobody") as redis:
        for _ in range(2):
            with pytest.raises(RedisConnectionError, match="No such file"):
                await redis.ping()


async def test_release_disconnects_a_connection_marked_for_it(single: Redis) -> None:
    taken = await take(single)
    taken.mark_for_reconnect()  # type: ignore[no-untyped-call]
    await single.connection_pool.release(taken)
    assert not taken.is_connected
    await single.ping()


@pytest.mark.parametrize(
    ("size", "doing"), [(1, "reading"), (WRITTEN_AT_ONCE, "reading"), (1024**2, "writing")]
)
async def test_command_to_a_frozen_server_times_out(tmp_path: Path, size: int, doing: str) -> None:
    async with (
        valkey_server(tmp_path) as server,
        client(f"{server.address}?socket_timeout=0.2") as redis,
    ):
        await redis.ping()
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(RedisTimeoutError, match=f"Timeout {doing}"):
            await redis.set("key", b"x" * size)
