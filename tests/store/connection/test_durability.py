"""Warnings about weak settings of the store, and 201 that waits for a replica."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from scheduler_api.domain.errors import (
    DuplicateMessage,
    OutcomeUnknown,
    StoreFull,
    StoreUnavailable,
)
from scheduler_api.store.connection import durability
from scheduler_api.store.connection.durability import Durability
from scheduler_api.store.store import Store
from tests.api.conftest import Scheduler, application, opened
from tests.support import engines
from tests.support.configured_store import DURABLE, info, server
from tests.support.factories import URL, accepted
from tests.support.problems import problem
from tests.support.valkey import client
from tests.support.waiting import wait_until
from tests.system.processes import free_port


async def warnings(redis: Redis, *, replica: bool = False) -> list[str]:
    found = Durability(redis, replica=replica)
    await found.refresh()
    return found.warnings


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (DURABLE, []),
        (("appendonly no",), ["appendonly is no: "]),
        (("appendonly yes", "appendfsync everysec"), ["appendfsync is everysec: "]),
        (("appendonly yes", "appendfsync no"), ["appendfsync is no: "]),
        (
            ("appendonly no", "maxmemory 100mb", "maxmemory-policy allkeys-lru"),
            ["appendonly is no: ", "maxmemory-policy is allkeys-lru: "],
        ),
    ],
)
async def test_warnings_name_each_weak_setting_and_its_value(
    tmp_path: Path, config: tuple[str, ...], expected: list[str]
) -> None:
    async with server(tmp_path / "s", *config) as address, client(address) as redis:
        found = await warnings(redis)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected, strict=True))


async def test_warnings_report_a_setting_that_may_not_be_read_as_unknown(tmp_path: Path) -> None:
    user = "user default on nopass ~* &* +@all -config"
    async with server(tmp_path / "s", *DURABLE, user) as address, client(address) as redis:
        (found,) = await warnings(redis)
    assert found.startswith("appendfsync is unknown because CONFIG GET is not allowed")


async def test_warnings_report_a_missing_replica(tmp_path: Path) -> None:
    async with server(tmp_path / "s", *DURABLE) as address, client(address) as redis:
        (found,) = await warnings(redis, replica=True)
    assert found.startswith("DURABILITY is replica, but the store has no replica")


async def test_refresh_reads_a_server_again_only_after_its_restart(tmp_path: Path) -> None:
    async with client(f"unix://{tmp_path}/s/s") as redis:
        found = Durability(redis, replica=False)
        with capture_logs() as logs:
            async with server(tmp_path / "s", "appendonly no"):
                await found.refresh()
                await found.refresh()
            async with server(tmp_path / "s", "appendonly yes", "appendfsync no"):
                await found.refresh()
    assert [entry["event"] for entry in logs] == ["store_not_durable"] * 2
    assert [entry["reason"].partition(":")[0] for entry in logs] == [
        "appendonly is no",
        "appendfsync is no",
    ]
    assert found.warnings == [logs[-1]["reason"]]


async def test_refresh_reads_every_primary_of_a_cluster_that_answers(tmp_path: Path) -> None:
    async with engines.cluster(tmp_path, *DURABLE) as nodes:
        await nodes[1].ask("CONFIG", "SET", "appendfsync", "everysec")
        names = [f"127.0.0.1:{node.port}" for node in nodes]
        async with engines.opened(engines.address("redis+cluster", nodes)) as redis:
            found = Durability(redis, replica=False)
            with capture_logs() as logs:
                await found.refresh()
                (warning,) = found.warnings
                assert warning.startswith("appendfsync is everysec")
                assert warning.endswith(f" (on {names[1]})")
                await nodes[0].kill()
                await found.refresh()
                assert found.warnings == [warning]
                for node in nodes[1:]:
                    await node.kill()
                with pytest.raises((RedisError, TimeoutError)):
                    await found.refresh()
    assert [entry["reason"] for entry in logs] == [warning]


@pytest.mark.parametrize(
    ("aof", "version", "commands"),
    [
        (1, "7.2.0", ["WAITAOF", "WAIT"]),
        (1, "8.0.1", ["WAITAOF", "WAIT"]),
        (0, "7.2.4", ["WAIT"]),
        (1, "7.0.15", ["WAIT"]),
    ],
)
def test_wait_commands_include_the_disk_if_the_server_has_waitaof(
    aof: int, version: str, commands: list[str]
) -> None:
    info_reply = {"aof_enabled": aof, "redis_version": version}
    assert [name for name, *_ in durability._wait_commands(info_reply)] == commands


@pytest.fixture
async def primary(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Address of a server with a replica; the replica's address has `replica` in its place."""
    monkeypatch.setattr(durability, "COPY_TIMEOUT_MS", 500)
    port = free_port()
    config = getattr(request, "param", DURABLE)
    at_once, follow = "repl-diskless-sync-delay 0", f"replicaof 127.0.0.1 {port}"
    async with (
        server(tmp_path / "primary", *config, at_once, port=port) as address,
        server(tmp_path / "replica", *config, follow) as other,
    ):

        async def follows() -> bool:
            return (await info(other)).get("master_link_status") == "up"

        await wait_until("the replica follows", follows)
        yield address


@pytest.fixture
async def safe_store(primary: str) -> AsyncIterator[Store]:
    """A store whose new messages must also be on the replica."""
    async with client(primary) as redis:
        yield Store(redis, replica=True)


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop the process during the block."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def replica_of(primary: str) -> int:
    info_reply = await info(primary.replace("/primary/", "/replica/"))
    return int(info_reply["process_id"])


async def test_create_succeeds_when_the_replica_has_the_message(safe_store: Store) -> None:
    await safe_store.messages.create("a", accepted(delay=60))
    assert (await safe_store.messages.get("a")).state == "scheduled"


async def test_create_with_a_replica_fails_like_without_when_the_store_is_away() -> None:
    with socket.socket() as closed:  # bound, never listening
        closed.bind(("127.0.0.1", 0))
        async with client(f"redis://127.0.0.1:{closed.getsockname()[1]}") as redis:
            with pytest.raises(StoreUnavailable):
                await Store(redis, replica=True).messages.create("a", accepted())


async def test_create_with_a_replica_sends_scripts_again_that_the_server_forgot(
    primary: str, safe_store: Store
) -> None:
    await safe_store.messages.create("a", accepted(delay=60))
    async with client(primary) as redis:
        await redis.script_flush()
    await safe_store.messages.create("b", accepted(delay=60))
    assert await safe_store.messages.count() == 2


async def test_create_with_a_replica_reports_a_full_store(primary: str, safe_store: Store) -> None:
    async with client(primary) as redis:
        await redis.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await safe_store.messages.create("a", accepted(delay=60))
        await redis.config_set("maxmemory", 0)
    await safe_store.messages.create("a", accepted(delay=60))


@pytest.mark.parametrize("primary", [DURABLE, ("appendonly no",)], indirect=True)
async def test_create_without_the_replica_confirms_neither_a_message_nor_its_repeat(
    primary: str, safe_store: Store
) -> None:
    with stopped(await replica_of(primary)):
        with pytest.raises(OutcomeUnknown):
            await safe_store.messages.create("a", accepted(delay=60))
        async with client(primary) as redis:  # on another connection, which has written nothing
            other = Store(redis, replica=True)
            with pytest.raises(OutcomeUnknown):
                await other.messages.create("a", accepted(delay=60))
    with pytest.raises(DuplicateMessage):
        await safe_store.messages.create("a", accepted(delay=60))


async def test_create_has_an_unknown_outcome_when_the_store_refuses_the_wait(
    primary: str, safe_store: Store
) -> None:
    """The script has already run."""
    async with client(primary) as redis:
        await redis.execute_command("ACL", "SETUSER", "default", "-wait", "-waitaof")  # type: ignore[no-untyped-call]
        with pytest.raises(OutcomeUnknown, match="has no permission to run WAIT") as unknown:
            await safe_store.messages.create("a", accepted(delay=60))
        await redis.execute_command("ACL", "SETUSER", "default", "+@all")  # type: ignore[no-untyped-call]
    assert unknown.value.facts == {"messageId": "a"}
    assert await safe_store.messages.count() == 1


async def test_create_over_http_without_the_replica_is_503_and_safe_to_repeat(
    primary: str, safe_store: Store
) -> None:
    scheduler = Scheduler()
    body = {"id": "a", "webhookUrl": URL, "delay": 60}
    async with opened(application(safe_store, scheduler), scheduler) as api:
        with stopped(await replica_of(primary)):
            async with api.client.post("/messages", json=body) as response:
                found = await problem(response, 503, "outcome_unknown")
        assert found["messageId"] == "a"
        async with api.client.post("/messages", json=body) as response:
            await problem(response, 409, "duplicate_message")


async def test_create_with_a_replica_raises_store_unavailable_when_the_store_is_away(
    tmp_path: Path,
) -> None:
    async with client(f"unix://{tmp_path}/nobody") as redis:
        with pytest.raises(StoreUnavailable):
            await Store(redis, replica=True).messages.create("a", accepted())
