"""The store with a user that has the documented permissions, and with one permission less."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

import scheduler_api
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.client import connect
from scheduler_api.store.store import Store
from tests.support import engines
from tests.support.acl import DOCUMENT, PASSWORD, granted
from tests.support.configured_store import DURABLE
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.valkey import valkey_server

# What the client itself sends, beside the scripts.
CLIENT = (
    "client|setinfo config|get eval evalsha hello info ping scan select ssubscribe sunsubscribe"
)

MAP = "+command +cluster|slots"  # of which command goes to which node


@asynccontextmanager
async def store_of_the_user(folder: Path, *without: str) -> AsyncIterator[Store]:
    """A store on a server where no other user has any permission."""
    lines = (granted(*without), "user default off", *DURABLE)
    async with valkey_server(folder, *lines) as server:
        redis = connect(f"unix://scheduler:{PASSWORD}@{server.socket}")
        yield Store(redis)
        await redis.aclose()


def test_document_grants_exactly_the_commands_that_are_called() -> None:
    lua = Path(scheduler_api.__file__).parent / "store" / "lua"
    called = {
        name.lower()
        for script in lua.rglob("*.lua")
        for name in re.findall(r"call\('([A-Z]+)'", script.read_text())
    }
    words = {word[1:] for word in granted().split() if word.startswith("+")}
    assert words == called | set(CLIENT.split())


async def test_documented_permissions_suffice_from_create_to_fsck(tmp_path: Path) -> None:
    async with store_of_the_user(tmp_path) as store:
        await store.check_all()
        assert store.durability.warnings == []
        await store.messages.create("a", accepted())
        await store.messages.create("b", accepted(delay=60))
        await store.messages.cancel("b")
        (claimed,) = (await store.queues[0].claim(10)).messages
        assert await store.queues[0].settle(outcome(claimed))
        assert (await store.messages.get("a")).state == "delivered"
        fsck = store.fsck(0)
        assert [one async for one in fsck.run(repair=False)] == []


@pytest.mark.parametrize("command", ["zadd", "spublish", "evalsha"])
async def test_create_names_a_command_without_permission(tmp_path: Path, command: str) -> None:
    async with store_of_the_user(tmp_path, f"+{command}") as store:
        with pytest.raises(StoreUnavailable, match=f"permission to run {command.upper()};"):
            await store.messages.create("a", accepted())


@pytest.mark.parametrize("right", ["~scheduler:*", "&scheduler:*"])
async def test_create_reports_keys_and_channels_without_permission(
    tmp_path: Path, right: str
) -> None:
    async with store_of_the_user(tmp_path, right) as store:
        with pytest.raises(StoreUnavailable, match="permission for keys that begin with REDIS_"):
            await store.messages.create("a", accepted())


async def test_store_without_config_get_works_with_a_warning(tmp_path: Path) -> None:
    async with store_of_the_user(tmp_path, "+config|get") as store:
        await store.check_all()
        (warning,) = store.durability.warnings
        assert warning.startswith("appendfsync is unknown")


async def test_cluster_also_needs_permission_for_cluster_slots(tmp_path: Path) -> None:
    assert f"`{MAP}` on each node of a cluster" in DOCUMENT.read_text()
    async with engines.cluster(tmp_path, f"{granted()} {MAP}", *DURABLE) as nodes:
        place = engines.address("redis+cluster", nodes)
        login = place.replace("://", f"://scheduler:{PASSWORD}@")
        async with engines.opened(login) as redis:
            store = Store(redis, partitions=16)
            await store.check_all()
            assert store.durability.warnings == []
            for number in range(16):
                await store.messages.create(f"m{number}", accepted())
            claims = [await queue.claim(16) for queue in store.queues]
            assert sum(len(claim.messages) for claim in claims) == 16
