"""Clients of each kind of store: how they connect, and that they never repeat a command."""

import asyncio
import ssl
from pathlib import Path

import pytest
import trustme
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.settings import store_url
from scheduler_api.store.connection import client as client_module
from scheduler_api.store.store import Store
from tests.support import engines
from tests.support.factories import accepted
from tests.support.stream_server import tcp_server

PASSWORD = "pass word/of:the@store"
QUOTED = "pass%20word%2Fof%3Athe%40store"
SLOW = "redis.call('INCR', KEYS[1]) for _ = 1, 2e8 do end"  # a script sees a constant clock
HANDSHAKE = b"\x16"  # the first byte of TLS


@pytest.mark.parametrize("engine", ["embedded", "cluster", "sentinel"])
async def test_client_does_not_repeat_a_command_without_a_reply(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engines.running(engine, tmp_path) as address:
        async with engines.opened(address) as client:
            await client.set("calls", 0)
        monkeypatch.setattr(client_module, "STORE_TIMEOUT", 0.5)
        async with engines.opened(address) as client:
            with pytest.raises((RedisError, TimeoutError)):
                await client.eval(SLOW, 1, "calls")
        monkeypatch.undo()
        async with engines.opened(address) as client:
            assert await client.get("calls") == b"1"


@pytest.mark.parametrize("engine", ["embedded", "cluster", "sentinel"])
async def test_client_reconnects_after_the_server_closed_its_connections(
    engine: str, tmp_path: Path
) -> None:
    async with (
        engines.running(engine, tmp_path) as address,
        engines.opened(address) as client,
        engines.opened(address) as other,
    ):
        await client.set("calls", 0)
        await other.client_kill_filter(_type="normal", **engines.everywhere(other))
        await client.incr("calls")
        assert await other.get("calls") == b"1"


SCHEMES = {
    "unix": "/nobody",
    **{f"redis{s}": "127.0.0.1" for s in ("", "s")},
    **{f"redis{s}+cluster": "127.0.0.1" for s in ("", "s")},
    **{f"redis{s}+sentinel": "127.0.0.1/m" for s in ("", "s")},
}
VALUES = {"db": "0", "protocol": "3", "ssl_cert_reqs": "required", "ssl_check_hostname": "true"}


@pytest.mark.parametrize("scheme", SCHEMES)
async def test_open_client_accepts_every_option_that_a_url_may_have(scheme: str) -> None:
    """Otherwise the first connection would raise a TypeError."""
    for option in store_url.options(scheme):
        address = f"{scheme}://{SCHEMES[scheme]}?{option}={VALUES.get(option, '1')}"
        assert store_url.validated(address) == address
        client = client_module.open_client(address)
        if isinstance(client, RedisCluster):
            for node in client.nodes_manager.startup_nodes.values():
                assert node.connection_class(**node.connection_kwargs)
        else:
            client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        await client_module.close(client)


async def test_connect_cluster_logs_in_with_a_password(tmp_path: Path) -> None:
    async with engines.cluster(tmp_path) as nodes:
        for node in nodes:
            await node.ask("CONFIG", "SET", "requirepass", PASSWORD)
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        async with engines.opened(f"redis+cluster://:{QUOTED}@{hosts}") as client:
            await Store(client, partitions=3).check()
        async with engines.opened(f"redis+cluster://{hosts}") as client:
            with pytest.raises(StoreUnavailable):
                await Store(client, partitions=3).check()


async def test_write_to_a_connection_that_was_just_closed_raises_store_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed(*_: object) -> None:
        raise AttributeError("'NoneType' object has no attribute 'writelines'")

    async with engines.cluster(tmp_path) as nodes:
        address = engines.address("redis+cluster", nodes)
        async with engines.opened(address) as client:
            await Store(client, partitions=3).check()
            monkeypatch.setattr(RedisCluster, "_execute_command", closed)
            with pytest.raises(StoreUnavailable):
                await Store(client, partitions=3).messages.create("a", accepted())


async def test_connect_sentinel_logs_in_to_sentinels_and_master_separately(tmp_path: Path) -> None:
    async with engines.watched_pair(tmp_path) as (master, _, sentinel):
        await master.ask("CONFIG", "SET", "requirepass", PASSWORD)
        await sentinel.ask("SENTINEL", "SET", engines.MASTER, "auth-pass", PASSWORD)
        await sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">of the sentinel")
        place = f"127.0.0.1:{sentinel.port}/{engines.MASTER}/2"
        both = f"redis+sentinel://:{QUOTED}@{place}?sentinel_password=of%20the%20sentinel"
        async with engines.opened(both) as client:
            await client.set("key", "in database 2")
            assert list(await client.info("keyspace")) == ["db2"]
        async with engines.opened(f"redis+sentinel://:{QUOTED}@{place}") as client:
            with pytest.raises(StoreUnavailable):
                await Store(client).check()


@pytest.mark.parametrize("kind", ["rediss+cluster://{}", "rediss+sentinel://{}/master"])
async def test_open_client_uses_tls_for_rediss(kind: str) -> None:
    first_bytes: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        first_bytes.append(await reader.read(1))

    async with (
        tcp_server(hang_up) as port,
        engines.opened(kind.format(f"127.0.0.1:{port}")) as client,
    ):
        with pytest.raises(StoreUnavailable):
            await Store(client).check()
    assert first_bytes[0] == HANDSHAKE


@pytest.mark.parametrize("kind", ["rediss://{}", "rediss+cluster://{}"])
async def test_certificate_of_another_issuer_is_reported_as_not_trusted(
    kind: str, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)

    async def hang_up(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        pass

    async with tcp_server(hang_up, context) as port:
        place = f"127.0.0.1:{port}?ssl_ca_certs={stranger}"
        async with engines.opened(kind.format(place)) as client:
            with pytest.raises(StoreUnavailable, match="certificate is not trusted"):
                await Store(client).check()


@pytest.mark.parametrize("engine", ["cluster", "sentinel"])
async def test_calls_wait_for_a_free_connection(engine: str, tmp_path: Path) -> None:
    async with engines.running(engine, tmp_path) as address, engines.opened(address) as client:
        store = Store(client, partitions=3)
        await asyncio.gather(
            *(store.messages.create(f"m{n}", accepted(delay="1h")) for n in range(300))
        )
        found = await asyncio.gather(*(store.messages.get(f"m{n}") for n in range(300)))
        assert [message.state for message in found] == ["scheduled"] * 300


async def test_connections_to_a_former_master_are_closed(
    own_redis: Redis, own_store: Store
) -> None:
    before = await own_redis.client_id()
    await own_redis.replicaof("127.0.0.1", 1)
    with pytest.raises(StoreUnavailable):
        await own_store.messages.create("a", accepted())
    assert await own_redis.client_id() > before
    await own_redis.replicaof("NO", "ONE")
    await own_store.messages.create("a", accepted())
