"""Private APIs of libraries that the service uses: each with its reason and a test.

A test that fails here after an upgrade names the module to change. For a new use, add a row to USED
and a test of the behaviour that the module relies on.
"""

import ast
import inspect
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import pytest
from aiohttp import BaseConnector
from aiohttp.client_proto import ResponseHandler
from packaging.requirements import Requirement
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode, NodesManager
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelConnectionPool

from scheduler_api.store import client as client_module
from scheduler_api.store.client import close, connect, connect_cluster, open_client
from tests.support import engines
from tests.support.waiting import wait_until
from tests.test_architecture import SOURCES

ROOT = Path(__file__).parent.parent


class Private(NamedTuple):
    """An attribute that a minor release of its library may change."""

    owner: type  # the class that defines it
    name: str  # an attribute of the class, or of `self` in its methods
    user: str  # our module
    reason: str  # why no documented API does the same


USED = (
    Private(
        BaseConnector,
        "_factory",
        "delivery.transport",
        "a connector accepts no protocol class; ours reads answers without aiohttp's parser",
    ),
    Private(
        BaseConnector,
        "_conns",
        "delivery.transport",
        "nothing else closes the idle connections to one destination",
    ),
    Private(
        ResponseHandler,
        "_parser",
        "delivery.protocol",
        "shows that aiohttp itself reads the answer of a proxy to CONNECT",
    ),
    Private(
        AbstractConnection,
        "pack_command",
        "store.client",
        "hiredis packs faster: redis-py's own packing takes a third of a create",
    ),
    Private(
        AbstractConnection,
        "_reader",
        "store.client",
        "nothing else shows that a node has closed a pooled connection",
    ),
    Private(
        AbstractConnection,
        "should_reconnect",
        "store.client",
        "a cluster's pool calls it before it reuses a connection",
    ),
    Private(
        ClusterNode,
        "connection_class",
        "store.client",
        "RedisCluster accepts no connection class for its startup nodes",
    ),
    Private(
        RedisCluster,
        "connection_kwargs",
        "store.client",
        "RedisCluster accepts no connection class for discovered nodes",
    ),
    Private(
        RedisCluster,
        "nodes_manager",
        "store.client",
        "holds the nodes, whose connections aclose() leaves open after an error",
    ),
    Private(NodesManager, "startup_nodes", "store.client", "the nodes named in REDIS_URL"),
    Private(NodesManager, "nodes_cache", "store.client", "the discovered nodes"),
    Private(NodesManager, "aclose", "store.client", "closes the nodes of one of these two"),
    Private(
        SentinelConnectionPool,
        "sentinel_manager",
        "store.client",
        "closing the pool leaves its connections to sentinels open",
    ),
)

# Libraries with such uses: pyproject.toml allows only minor versions that were tested.
PINNED = ("aiohttp", "hiredis", "httptools", "redis", "uvicorn")


def set_by_methods(owner: type) -> set[str]:
    """Names of the attributes that the methods of a class set."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(owner)))
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def others_private(text: str) -> Iterator[str]:
    """Private attributes that a text reads of other objects than `self`; os._exit is none."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
            if not own and not node.attr.startswith("__"):
                yield node.attr


@pytest.mark.parametrize("used", USED, ids=lambda used: f"{used.owner.__name__}.{used.name}")
def test_private_attribute_exists_and_is_used(used: Private) -> None:
    assert hasattr(used.owner, used.name) or used.name in set_by_methods(used.owner), used.reason
    assert used.name in SOURCES[used.user], f"{used.user} does not use it; remove the row"


def test_table_has_every_private_attribute_of_another_object() -> None:
    known = {(used.user, used.name) for used in USED}
    found = {(module, name) for module, text in SOURCES.items() for name in others_private(text)}
    assert found <= known


def test_others_private_finds_private_attributes() -> None:
    text = "self._own\ncls._own\nos._exit(1)\nconnection._protocol.send()\nx.__name__"
    assert list(others_private(text)) == ["_protocol"]


@pytest.mark.parametrize("library", PINNED)
def test_library_with_private_uses_is_pinned_to_tested_minor_versions(
    library: str,
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [wanted] = [
        needed for line in project["dependencies"] if (needed := Requirement(line)).name == library
    ]
    bounds = {it.operator: it.version for it in wanted.specifier}
    assert set(bounds) == {">=", "<"}
    assert bounds["<"].count(".") == 1, (
        f"{library} <{bounds['<']} also allows minor versions that were not tested"
    )


async def test_redis_py_writes_what_pack_command_returns(tmp_path: Path) -> None:
    """In commands, in pipelines, and in the handshake."""
    asked: list[tuple[Any, ...]] = []

    class Recording(client_module._packing(UnixDomainSocketConnection)):  # type: ignore[misc]
        def pack_command(self, *args: Any) -> Any:
            asked.append(args)
            return super().pack_command(*args)

    async with engines.running("embedded", tmp_path) as address:
        client = connect(address)
        client.connection_pool.connection_class = Recording
        await client.set("a", "1")
        async with client.pipeline(transaction=False) as pipeline:
            pipeline.execute_command("GET", "a")
            pipeline.execute_command("INCR", "a")
            replies = await pipeline.execute()
        await close(client)
    assert replies == [b"1", 2]
    assert [args for args in asked if args[0] in ("SET", "GET", "INCR")] == [
        ("SET", "a", "1"),
        ("GET", "a"),
        ("INCR", "a"),
    ]
    assert any(args[0].startswith("CLIENT") for args in asked)


def test_hiredis_pack_command_returns_resp_and_refuses_none() -> None:
    packed = hiredis.pack_command(("SET", b"\xff", "\u00e9", 7))  # type: ignore[arg-type]
    assert packed == b"*4\r\n$3\r\nSET\r\n$1\r\n\xff\r\n$2\r\n\xc3\xa9\r\n$1\r\n7\r\n"
    with pytest.raises(TypeError):
        hiredis.pack_command(("SET", None))  # type: ignore[arg-type]


async def test_reader_of_connection_shows_that_server_closed_it(
    tmp_path: Path,
) -> None:
    server = engines.Server(tmp_path, *engines.HASTY)
    connection = client_module._DiallingAnew(port=server.port)
    try:
        assert not connection.should_reconnect()  # not yet connected
        await server.start()
        await connection.connect()  # type: ignore[no-untyped-call]
        assert not connection.should_reconnect()
        await server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await wait_until("the closed connection", connection.should_reconnect)
    finally:
        await connection.disconnect()
        await server.kill()


@pytest.mark.parametrize(
    ("scheme", "kind"), [("redis", Connection), ("rediss", SSLConnection)], ids=["plain", "tls"]
)
async def test_cluster_nodes_create_connections_of_our_class(
    scheme: str, kind: type[Connection]
) -> None:
    client = connect_cluster(f"{scheme}+cluster://127.0.0.1:1,127.0.0.1:2")
    from_the_url = list(client.nodes_manager.startup_nodes.values())
    found_later = ClusterNode("127.0.0.1", 3, **client.connection_kwargs)
    assert len(from_the_url) == 2
    for node in [*from_the_url, found_later]:
        connection = node.acquire_connection()
        assert isinstance(connection, client_module._DiallingAnew)
        assert isinstance(connection, client_module._Packing)
        assert isinstance(connection, kind)
    await close(client)


async def test_cluster_node_calls_should_reconnect_before_reuse() -> None:
    asked = []

    class Asked(Connection):
        def should_reconnect(self) -> bool:
            asked.append(self)
            return False

    node = ClusterNode("127.0.0.1", 1, connection_class=Asked)
    connection = node.acquire_connection()
    await node.disconnect_if_needed(connection)
    assert asked == [connection]


async def test_close_disconnects_startup_and_discovered_nodes() -> None:
    closed: list[str] = []

    class Node(ClusterNode):
        async def disconnect(self) -> None:
            closed.append(self.name)

    client = connect_cluster("redis+cluster://127.0.0.1:1")
    await client.aclose()  # as after an error: redis-py now regards it as closed
    client.nodes_manager.startup_nodes = {"a": Node("127.0.0.1", 1)}
    client.nodes_manager.nodes_cache = {"b": Node("127.0.0.1", 2)}
    await close(client)
    assert sorted(closed) == ["127.0.0.1:1", "127.0.0.1:2"]


def test_sentinel_pool_takes_each_method_from_the_right_pool() -> None:
    pool = client_module._SentinelPool
    for name in ("get_connection", "release", "can_get_connection"):
        assert getattr(pool, name) is getattr(BlockingConnectionPool, name)
    for name in ("owns_connection", "get_master_address"):
        assert getattr(pool, name) is getattr(SentinelConnectionPool, name)
    order = pool.__mro__
    assert order.index(SentinelConnectionPool) < order.index(BlockingConnectionPool)
    assert order.index(BlockingConnectionPool) < order.index(ConnectionPool)


async def test_sentinel_pool_initializes_both_pools() -> None:
    client = open_client("redis+sentinel://127.0.0.1:1/master")
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, client_module._SentinelPool)
    assert (pool.timeout, pool.max_connections) == (
        client_module.TIMEOUT,
        client_module.CONNECTIONS,
    )
    assert pool.service_name == "master"
    assert pool.can_get_connection()
    pool.reset()  # type: ignore[no-untyped-call]
    assert pool.master_address is None
    await close(client)


@pytest.mark.parametrize(
    "address", ["redis://127.0.0.1:1", "rediss://127.0.0.1:1", "unix:///nobody"]
)
async def test_connect_disables_maintenance_notifications(address: str) -> None:
    """With them, a pool reuses a connection that the server has closed."""
    client = connect(address)
    assert not client.connection_pool.maint_notifications_enabled()  # type: ignore[no-untyped-call]
    await close(client)
