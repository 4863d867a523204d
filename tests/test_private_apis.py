"""Private APIs of libraries that the service uses: each with what breaks without it, and a test.

A test that fails here after an upgrade names the module to change. For a new use, add a row to USED
and a test of the behaviour that the module relies on.
"""

import ast
import importlib
import inspect
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import hiredis
import httptools
import pytest
from aiohttp import BaseConnector, ClientRequest, TCPConnector
from aiohttp.client_proto import ResponseHandler
from packaging.requirements import Requirement
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode, ClusterPubSub, NodesManager
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import SentinelConnectionPool
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from scheduler_api.domain.errors import HeadTooLarge
from scheduler_api.store.connection import client as client_module
from scheduler_api.store.connection import connections
from scheduler_api.store.connection.client import close, connect, connect_cluster, open_client
from tests.support import engines
from tests.support.waiting import wait_until
from tests.test_architecture import SOURCES

ROOT = Path(__file__).parent.parent


class Private(NamedTuple):
    """An attribute that a minor release of its library may change."""

    owner: type  # the class that defines it
    name: str  # an attribute of the class, or of `self` in its methods
    user: str  # our module
    breaks: str  # what fails without it


# redis-py's methods that are public by name, but documented for no use outside of redis-py, are
# listed too.
USED: tuple[Private, ...] = (
    Private(
        BaseConnector,
        "_factory",
        "delivery.http.transport",
        "responses are read by aiohttp's parser instead of ours",
    ),
    Private(
        BaseConnector,
        "_conns",
        "delivery.http.egress",
        "idle connections are neither counted nor closed when there are too many",
    ),
    Private(
        BaseConnector,
        "_conns",
        "delivery.http.transport",
        "after a closed idle connection, the next request may get another closed one",
    ),
    Private(
        BaseConnector,
        "_acquired",
        "delivery.http.egress",
        "open connections are not counted, so their limit does not hold",
    ),
    Private(
        BaseConnector,
        "connect",
        "delivery.http.transport",
        "no connection can be opened without a ClientSession",
    ),
    Private(
        TCPConnector,
        "_create_connection",
        "delivery.http.proxy",
        "the destination is not checked before the proxy gets its name",
    ),
    Private(
        TCPConnector,
        "_create_direct_connection",
        "delivery.http.proxy",
        "an unreachable proxy is reported as an unreachable destination",
    ),
    Private(
        TCPConnector,
        "_resolve_host",
        "delivery.http.proxy",
        "the destination behind a proxy is resolved again for every connection",
    ),
    Private(
        ClientRequest,
        "connection_key",
        "delivery.http.transport",
        "the idle connections of a destination are not found",
    ),
    Private(
        ResponseHandler,
        "_loop",
        "delivery.http.client_protocol",
        "an exchange has no future to wait for",
    ),
    Private(
        ResponseHandler,
        "_parser",
        "delivery.http.client_protocol",
        "the response of a proxy to CONNECT is dropped as unexpected data",
    ),
    Private(
        ResponseHandler,
        "should_close",
        "delivery.http.client_protocol",
        "a connection is reused although its response forbids it",
    ),
    Private(
        ResponseHandler,
        "abort",
        "delivery.http.client_protocol",
        "a connection with unexpected data stays open",
    ),
    Private(
        AbstractConnection,
        "pack_command",
        "store.connection.connections",
        "commands are encoded in Python: a create takes a third longer",
    ),
    Private(
        AbstractConnection,
        "send_packed_command",
        "store.connection.connections",
        "large commands get no more time, and a failed call may wrongly count as not sent",
    ),
    Private(
        AbstractConnection,
        "check_health",
        "store.connection.connections",
        "a call may use a connection that has been dead for a while",
    ),
    Private(
        AbstractConnection,
        "connect_check_health",
        "store.connection.connections",
        "a call on a closed connection fails instead of reconnecting",
    ),
    Private(
        BlockingConnectionPool,
        "can_get_connection",
        "store.connection.connections",
        "more connections may be opened than are allowed",
    ),
    Private(
        ConnectionPool,
        "get_available_connection",
        "store.connection.connections",
        "a call cannot take a free connection at once",
    ),
    Private(
        ConnectionPool,
        "ensure_connection",
        "store.connection.connections",
        "a call may use a connection that the server closed",
    ),
    Private(
        ConnectionPool,
        "_available_connections",
        "store.connection.connections",
        "a connection cannot be given back without a lock",
    ),
    Private(
        ConnectionPool,
        "_in_use_connections",
        "store.connection.connections",
        "a connection cannot be given back without a lock",
    ),
    Private(
        AbstractConnection,
        "_reader",
        "store.connection.client",
        "a call to a cluster fails on a connection that the node closed",
    ),
    Private(
        AbstractConnection,
        "should_reconnect",
        "store.connection.client",
        "a cluster's pool reuses a connection without asking us",
    ),
    Private(
        ClusterNode,
        "connection_class",
        "store.connection.client",
        "connections to the nodes in REDIS_URL are redis-py's own",
    ),
    Private(
        RedisCluster,
        "connection_kwargs",
        "store.connection.client",
        "connections to discovered nodes are redis-py's own",
    ),
    Private(
        RedisCluster,
        "nodes_manager",
        "store.connection.client",
        "connections stay open when a client is closed after an error",
    ),
    Private(
        NodesManager,
        "startup_nodes",
        "store.connection.client",
        "connections to the nodes in REDIS_URL stay open at the end",
    ),
    Private(
        NodesManager,
        "nodes_cache",
        "store.connection.client",
        "connections to discovered nodes stay open at the end",
    ),
    Private(
        NodesManager,
        "aclose",
        "store.connection.client",
        "connections of a cluster stay open when a client is closed after an error",
    ),
    Private(
        SentinelConnectionPool,
        "sentinel_manager",
        "store.connection.client",
        "connections to sentinels stay open at the end",
    ),
    Private(
        ClusterPubSub,
        "node_pubsub_mapping",
        "store.connection.notifier",
        "notifications of a cluster are polled instead of awaited",
    ),
)

# uvicorn documents no way to replace its protocol. tests/api/test_framing.py and
# tests/server/protocol test what ours does with these.
IN_UVICORN = (
    (HttpToolsProtocol, "parser", "a request with an upgrade is not parsed again as a plain one"),
    (HttpToolsProtocol, "url", "the head of a request with an upgrade cannot be built again"),
    (HttpToolsProtocol, "headers", "their number is not limited, and trailers are among them"),
    (HttpToolsProtocol, "scope", "an error may be attributed to the wrong request"),
    (HttpToolsProtocol, "cycle", "a refusal may overtake the response before it"),
    (HttpToolsProtocol, "pipeline", "refusals of pipelined requests come in the wrong order"),
    (HttpToolsProtocol, "flow", "a client that reads nothing counts as a slow sender"),
    (HttpToolsProtocol, "limit_concurrency", "refusals are plain text, also for health checks"),
    (HttpToolsProtocol, "timeout_keep_alive", "idle connections stay open"),
    (HttpToolsProtocol, "_should_upgrade", "half of a request runs before its error"),
    (HttpToolsProtocol, "_start_asgi_task", "refusals are not sent"),
    (HttpToolsProtocol, "on_response_complete", "requests behind a refusal do not start"),
    (RequestResponseCycle, "body", "the application does not notice that a request failed"),
    (RequestResponseCycle, "message_event", "the application waits for a body that never comes"),
    (RequestResponseCycle, "keep_alive", "the connection stays open after an error"),
    (RequestResponseCycle, "response_started", "a second response is written into the first"),
    (RequestResponseCycle, "response_complete", "the next response does not begin"),
    (RequestResponseCycle, "disconnected", "a response that is cut off logs an error"),
    (RequestResponseCycle, "more_body", "a client that sends no body keeps others out"),
    (FlowControl, "read_paused", "a client that reads nothing counts as a slow sender"),
    (FlowControl, "resume_reading", "reading stops while requests wait"),
)
USED += tuple(
    Private(owner, name, "server.protocol.http_protocol", breaks)
    for owner, name, breaks in IN_UVICORN
)
USED += (
    Private(
        ServerState, "connections", "server.protocol.connections", "connections are not watched"
    ),
)

# Libraries with such uses. pyproject.toml allows only minor versions that were tested.
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


_DOCUMENTED = {"_fields", "_make"}  # of named tuples: public in spite of the underscore


def others_private(text: str) -> Iterator[str]:
    """Private attributes that a text reads from other objects than `self`, except os._exit."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
            if not own and not node.attr.startswith("__") and node.attr not in _DOCUMENTED:
                yield node.attr


def inherited_private(of_ours: type) -> set[str]:
    """Private attributes of libraries that a class of ours overrides, sets or reads."""
    libraries = [
        base
        for base in of_ours.__mro__
        if base.__module__.partition(".")[0] in PINNED and base.__module__ != "aiohttp.abc"
    ]
    if not libraries:
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(of_ours)))
    ours = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    ours |= {node.name for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef)}
    ours |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    private = {name for name in ours if re.match("_[^_]", name)}
    # Searched in the text of the modules: inspect.getsource of redis-py's classes takes 30 seconds.
    texts = [text_of(base.__module__) for base in libraries]
    return {
        name
        for name in private
        if any(hasattr(base, name) for base in libraries)
        or any(re.search(rf"self\.{name}(: [^=\n]+)? = ", text) for text in texts)
    }


@cache
def text_of(module: str) -> str:
    return Path(str(sys.modules[module].__file__)).read_text("utf-8")


@pytest.mark.parametrize("used", USED, ids=lambda used: f"{used.owner.__name__}.{used.name}")
def test_private_attribute_exists_and_is_used(used: Private) -> None:
    assert hasattr(used.owner, used.name) or used.name in set_by_methods(used.owner), (
        f"{used.user} uses it; without it, {used.breaks}"
    )
    assert used.name in SOURCES[used.user], f"{used.user} does not use it; remove the row"


def test_table_has_every_private_attribute_of_another_object() -> None:
    known = {(used.user, used.name) for used in USED}
    found = {(module, name) for module, text in SOURCES.items() for name in others_private(text)}
    assert found <= known


def test_table_has_every_private_attribute_that_a_class_of_ours_inherits() -> None:
    known = {(used.user, used.name) for used in USED}
    modules = {
        name: importlib.import_module(f"scheduler_api.{name}".rstrip("."))
        for name in SOURCES
        if name[:2] != "__"
    }
    found = {
        (name, attribute)
        for name, module in modules.items()
        for _, of_ours in inspect.getmembers(module, inspect.isclass)
        if of_ours.__module__ == module.__name__
        for attribute in inherited_private(of_ours)
    }
    assert found <= known


def test_inherited_private_finds_what_a_class_takes_from_its_library() -> None:
    assert inherited_private(_Inheriting) == {"_reader", "_get_parser", "_connect"}


class _Inheriting(Connection):
    def _connect(self) -> Any:
        return super()._get_parser(), self._reader, self._mine()

    def _mine(self) -> bool:
        return True


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


def test_request_cycle_of_uvicorn_accepts_the_arguments_of_a_refusal() -> None:
    given = {
        node.arg
        for node in ast.walk(ast.parse(SOURCES["server.protocol.http_protocol"]))
        if isinstance(node, ast.keyword)
    }
    wanted = set(inspect.signature(RequestResponseCycle).parameters)
    assert wanted <= given


def test_httptools_calls_what_the_protocol_defines() -> None:
    calls: list[str] = []

    class Callbacks:
        def __getattr__(self, name: str) -> Any:
            return lambda *_: calls.append(name)

    parser = httptools.HttpRequestParser(Callbacks())
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    parser.feed_data(memoryview(head + b"1\r\na\r\n0\r\nTrailer: b\r\n\r\n"))
    begun = ["on_message_begin", "on_url", "on_header", "on_headers_complete"]
    chunk = ["on_chunk_header", "on_body", "on_chunk_complete"]
    trailers = ["on_chunk_header", "on_header", "on_chunk_complete"]
    assert calls == [*begun, *chunk, *trailers, "on_message_complete"]


def test_httptools_reports_where_the_head_of_an_upgrade_ends() -> None:
    parser = httptools.HttpRequestParser(object())
    head = b"GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with pytest.raises(httptools.HttpParserUpgrade) as caught:
        parser.feed_data(memoryview(b"before" + head + b"after")[6:])
    assert caught.value.args == (len(head),)


def test_httptools_passes_on_the_error_of_a_callback() -> None:
    class Callbacks:
        def on_headers_complete(self) -> None:
            raise HeadTooLarge

    parser = httptools.HttpRequestParser(Callbacks())
    with pytest.raises(httptools.HttpParserCallbackError) as caught:
        parser.feed_data(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(caught.value.__context__, HeadTooLarge)


async def test_redis_py_writes_what_pack_command_returns(tmp_path: Path) -> None:
    """In commands, in pipelines, and in the handshake."""
    asked: list[tuple[Any, ...]] = []

    class Recording(connections.extended(UnixDomainSocketConnection)):  # type: ignore[misc]
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
    connection = client_module._ReconnectingConnection(port=server.port)
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
        assert isinstance(connection, client_module._ReconnectingConnection)
        assert isinstance(connection, connections.StoreConnection)
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
    pool = connections.SentinelPool
    for name in ("get_connection", "release"):
        assert getattr(pool, name) is getattr(connections.StorePool, name)
    assert pool.can_get_connection is BlockingConnectionPool.can_get_connection
    for name in ("owns_connection", "get_master_address"):
        assert getattr(pool, name) is getattr(SentinelConnectionPool, name)
    order = pool.__mro__
    assert order.index(SentinelConnectionPool) < order.index(connections.StorePool)
    assert order.index(BlockingConnectionPool) < order.index(ConnectionPool)


async def test_sentinel_pool_initializes_both_pools() -> None:
    client = open_client("redis+sentinel://127.0.0.1:1/master")
    assert isinstance(client, Redis)
    pool = client.connection_pool
    assert isinstance(pool, connections.SentinelPool)
    assert (pool.timeout, pool.max_connections) == (
        client_module.STORE_TIMEOUT,
        client_module.MAX_STORE_CONNECTIONS,
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
