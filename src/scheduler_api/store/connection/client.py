"""Clients of the store: of one server, of a Cluster, or of the master that Sentinel names.

No client repeats a command, as redis-py does by default. A redirection within a cluster is no
repetition, because the first node did not run the command.
"""

import asyncio
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import (
    Sentinel,
    SentinelConnectionPool,
    SentinelManagedConnection,
    SentinelManagedSSLConnection,
)
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.maint_notifications import MaintNotificationsConfig

from scheduler_api.store.connection.connections import (
    SentinelPool,
    StorePool,
    extended,
)

Client = Redis | RedisCluster

MAX_STORE_CONNECTIONS: Final = 16  # to one server; batches of calls need few
MAX_CLUSTER_CALLS: Final = 64  # open calls, over all nodes of a cluster
STORE_TIMEOUT: Final = 2.0  # seconds to connect, to get a reply, and to get a free connection
REDIS_PORT: Final = 6_379
SENTINEL_PORT: Final = 26_379


def open_client(address: str) -> Client:
    """The client for a URL: unix, redis or rediss; these two also with +cluster or +sentinel."""
    kind = urlsplit(address).scheme.partition("+")[2]
    if kind == "cluster":
        return connect_cluster(address)
    return connect_sentinel(address) if kind == "sentinel" else connect(address)


async def close(client: Client) -> None:
    """Close every connection."""
    await client.aclose()
    if isinstance(client, Redis):
        pool = client.connection_pool
        await pool.disconnect()
        if isinstance(pool, SentinelConnectionPool):
            await pool.sentinel_manager.aclose()


def connect(address: str) -> Redis:
    """One server: redis://, rediss:// or unix://."""
    options = _options() | {"max_connections": MAX_STORE_CONNECTIONS, "timeout": STORE_TIMEOUT}
    options |= parse_url(address)
    connection = extended(options.pop("connection_class", Connection))
    return Redis.from_pool(StorePool(connection_class=connection, **options))


def connect_cluster(address: str) -> RedisCluster:
    """A Cluster, by some of its nodes: redis+cluster://LOGIN@HOST:PORT,HOST:PORT."""
    url = urlsplit(address)
    options = _options() | _parsed(url)
    options["max_connections"] = 2**31  # MAX_CLUSTER_CALLS is the limit
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    nodes = [ClusterNode(host, port) for host, port in _hosts(url, REDIS_PORT)]
    return _BlockingCluster(
        startup_nodes=nodes,
        require_full_coverage=False,  # partitions on the other nodes stay available
        reinitialize_steps=0,  # a redirection already says where the slot is now
        **options,
    )


def connect_sentinel(address: str) -> Redis:
    """The master NAME of sentinels: redis+sentinel://LOGIN@HOST:PORT,HOST:PORT/NAME/DB.

    Login for the sentinels: ?sentinel_username=…&sentinel_password=….
    """
    url = urlsplit(address)
    _, name, *_ = url.path.split("/")
    options = _options() | _parsed(url, path=url.path.removeprefix(f"/{name}"))
    encrypted = options.pop("connection_class", None) is SSLConnection
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        _hosts(url, SENTINEL_PORT), sentinel_kwargs=_take_sentinel_options(options, encrypted)
    )
    connection = SentinelManagedSSLConnection if encrypted else SentinelManagedConnection
    pool = SentinelPool(  # type: ignore[no-untyped-call]
        name,
        sentinel,
        connection_class=extended(connection),
        max_connections=MAX_STORE_CONNECTIONS,
        timeout=STORE_TIMEOUT,
        **options,
    )
    return Redis.from_pool(pool)


def _take_sentinel_options(options: dict[str, Any], encrypted: bool) -> dict[str, Any]:
    """The options of connections to sentinels; removes their login from `options`."""
    login = {key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")}
    tls = {key: value for key, value in options.items() if key.startswith("ssl_")}
    return _options() | login | tls | {"ssl": encrypted}


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": STORE_TIMEOUT,
        "socket_connect_timeout": STORE_TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 15,  # seconds of idleness before a PING
        # With notifications on (the default), a pool reuses connections that the server closed:
        # redis-py #4252, fixed after 8.1 by #4260.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _parsed(url: SplitResult, path: str = "") -> dict[str, Any]:
    """Login, database and options of the URL, read as redis-py reads them for one server."""
    login = url.netloc.rpartition("@")[0]
    scheme = url.scheme.partition("+")[0]
    one = SplitResult(scheme, f"{login}@", path, url.query, "").geturl()
    return {**parse_url(one)}


def _hosts(url: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Host and port of each server that the URL names."""
    servers = [urlsplit(f"//{server}") for server in url.netloc.rpartition("@")[2].split(",")]
    return [(server.hostname or "", server.port or default_port) for server in servers]


class _ReconnectingConnection(Connection):
    """Reconnects before a call if the node closed the connection.

    redis-py's pools do so, but ClusterNode has no pool, until redis-py #3558 is resolved.
    """

    def should_reconnect(self) -> bool:
        """Whether the connection must be opened again before its next use."""
        return self._is_closed() or bool(super().should_reconnect())  # type: ignore[no-untyped-call]

    def _is_closed(self) -> bool:
        reader = self._reader
        return reader is not None and (reader.at_eof() or reader.exception() is not None)


class _ReconnectingSSLConnection(_ReconnectingConnection, SSLConnection):
    """The same over TLS."""


class _BlockingCluster(RedisCluster):
    """Limits the open calls, instead of failing when all connections of a node are in use.

    Until redis-py #3558 (a connection pool in ClusterNode) or #3359 (waiting) is released.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._calls = asyncio.Semaphore(MAX_CLUSTER_CALLS)
        encrypted = self.connection_kwargs["connection_class"] is SSLConnection
        reconnecting = _ReconnectingSSLConnection if encrypted else _ReconnectingConnection
        connection = cast("type[Connection]", extended(reconnecting))
        # RedisCluster accepts no connection class: set it for nodes discovered later, and for the
        # nodes of the URL.
        self.connection_kwargs["connection_class"] = connection
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = connection

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As RedisCluster. Raises: also TimeoutError, if no call may start in time."""
        async with asyncio.timeout(STORE_TIMEOUT):
            await self._calls.acquire()
        try:
            return await super().execute_command(*args, **options)
        except AttributeError as error:
            # A write to a connection that was just closed: redis-py #4287, fixed after 8.1.
            raise RedisConnectionError("the connection was closed") from error
        finally:
            self._calls.release()

    async def aclose(self) -> None:
        """Close all connections, also after an error.

        After one, `RedisCluster.aclose` does nothing, although connections may be open (as of
        redis-py 8.1; no issue is open).
        """
        await super().aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(nodes)
