"""Opens a client of the store: one server, a Cluster, or the server that Sentinel calls master.

None runs a command a second time by itself, as redis-py does by default; a cluster's redirection
is no second time, as the first node did not run it.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, cast
from urllib.parse import SplitResult, urlsplit

import hiredis
from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
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

Client = Redis | RedisCluster

CONNECTIONS: Final = 16  # at the most, to one server; calls are gathered, so that few are needed
CLUSTER_CALLS: Final = 64  # under way at once, over all nodes of a cluster
TIMEOUT: Final = 2.0  # seconds for a connection, for an answer, for a free connection
SLOWEST: Final = 4 * 1024**2  # bytes a second that a store takes; a large command gets more time
SENTINEL_PORT: Final = 26_379


class Call:
    """One call of a client; whether anything of it may have reached a server."""

    begun = False


# Set by whoever wants to know that of its next call.
CALL: Final[ContextVar[Call]] = ContextVar("CALL", default=Call())  # noqa: B039


def open_client(address: str) -> Client:
    """By the URL's scheme: redis, rediss, unix; these two with +cluster or +sentinel."""
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
    options = _options() | {"max_connections": CONNECTIONS, "timeout": TIMEOUT}
    options |= parse_url(address)
    connection = _packing(options.pop("connection_class", Connection))
    return Redis.from_pool(BlockingConnectionPool(connection_class=connection, **options))


def connect_cluster(address: str) -> RedisCluster:
    """A Cluster, by some of its nodes: redis+cluster://LOGIN@HOST:PORT,HOST:PORT."""
    url = urlsplit(address)
    options = _options() | _parsed(url) | {"max_connections": 2**31}  # bounded by its calls
    options["ssl"] = options.pop("connection_class", None) is SSLConnection
    nodes = [ClusterNode(host, port) for host, port in _places(url, 6379)]
    return _Cluster(
        startup_nodes=nodes,
        require_full_coverage=False,  # partitions of the nodes that live go on
        reinitialize_steps=0,  # a redirection tells the new place of that partition, and is kept
        **options,
    )


def connect_sentinel(address: str) -> Redis:
    """What several sentinels call master: redis+sentinel://LOGIN@HOST:PORT,HOST:PORT/NAME/DB.

    The sentinels' own login: ?sentinel_username=…&sentinel_password=….
    """
    url = urlsplit(address)
    _, name, *_ = url.path.split("/")
    options = _options() | _parsed(url, path=url.path.removeprefix(f"/{name}"))
    asked = _options() | {
        key: options.pop(f"sentinel_{key}", None) for key in ("username", "password")
    }
    encrypted = options.pop("connection_class", None) is SSLConnection
    asked |= {key: value for key, value in options.items() if key.startswith("ssl_")}
    asked["ssl"] = encrypted
    places = _places(url, SENTINEL_PORT)
    sentinel = Sentinel(places, sentinel_kwargs=asked)  # type: ignore[no-untyped-call]
    connection = SentinelManagedSSLConnection if encrypted else SentinelManagedConnection
    pool = _SentinelPool(  # type: ignore[no-untyped-call]
        name,
        sentinel,
        connection_class=_packing(connection),
        max_connections=CONNECTIONS,
        timeout=TIMEOUT,
        **options,
    )
    return Redis.from_pool(pool)


def _options() -> dict[str, Any]:
    return {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": TIMEOUT,
        "retry": Retry(NoBackoff(), 0),
        "health_check_interval": 15,
        # With them on, which is the default, a pooled connection that has ended is used again.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
    }


def _parsed(url: SplitResult, path: str = "") -> dict[str, Any]:
    """Login, database and the options of the query, as redis-py reads them for one server."""
    login = url.netloc.rpartition("@")[0]
    scheme = url.scheme.partition("+")[0]
    one = SplitResult(scheme, f"{login}@", path, url.query, "").geturl()
    return {**parse_url(one)}


def _places(url: SplitResult, default_port: int) -> list[tuple[str, int]]:
    """Host and port of each that the URL names."""
    each = [urlsplit(f"//{place}") for place in url.netloc.rpartition("@")[2].split(",")]
    return [(one.hostname or "", one.port or default_port) for one in each]


class _Packing(AbstractConnection):
    """Writes commands by hiredis; redis-py's own packing takes a third of a create.

    Gives a large command time by its size, and notes in `CALL` that it is being sent.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._patience = self.socket_timeout or 0.0  # seconds for a small command

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As AbstractConnection; without `check_health` it is a handshake, or the ping before."""
        packed = cast("Sequence[bytes]", command)  # all of redis-py's own calls give one
        if check_health:
            if not self.is_connected:
                await self.connect_check_health(check_health=False)
            await self.check_health()  # type: ignore[no-untyped-call]
            self.socket_timeout = self._patience + sum(map(len, packed)) / SLOWEST
            CALL.get().begun = True
        await super().send_packed_command(command, check_health=False)

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command as it is sent. Raises: TypeError for what is no text, bytes or number."""
        name, *rest = args
        return [hiredis.pack_command((*name.encode().split(), *rest))]  # CLIENT SETINFO: two words


@cache
def _packing(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    return type(f"Packing{connection.__name__}", (_Packing, connection), {})


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Waits for a free connection, as that of one server does, instead of failing."""


class _DiallingAnew(Connection):
    """Not used again when its node has hung up, as redis-py's other pools see for themselves."""

    def should_reconnect(self) -> bool:
        """Asked whenever it is taken out of a node's free ones."""
        return self._hung_up() or bool(super().should_reconnect())  # type: ignore[no-untyped-call]

    def _hung_up(self) -> bool:
        reader = self._reader
        return reader is not None and (reader.at_eof() or reader.exception() is not None)


class _DiallingAnewSSL(_DiallingAnew, SSLConnection):
    """The same over TLS."""


class _Cluster(RedisCluster):
    """Bounds the calls under way instead of failing when a node's connections are all in use."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._calls = asyncio.Semaphore(CLUSTER_CALLS)
        encrypted = self.connection_kwargs["connection_class"] is SSLConnection
        dialling = _DiallingAnewSSL if encrypted else _DiallingAnew
        dial = cast("type[Connection]", _packing(dialling))
        self.connection_kwargs["connection_class"] = dial  # of all nodes that are found later
        for node in self.nodes_manager.startup_nodes.values():
            node.connection_class = dial

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As RedisCluster. Raises: TimeoutError, too."""
        async with asyncio.timeout(TIMEOUT):
            await self._calls.acquire()
        try:
            return await super().execute_command(*args, **options)
        except AttributeError as error:  # it writes on a connection that was closed meanwhile
            raise RedisConnectionError("the connection was closed") from error
        finally:
            self._calls.release()

    async def aclose(self) -> None:
        """Also after a failure, when redis-py takes its connections for closed already."""
        await super().aclose()
        for nodes in ("nodes_cache", "startup_nodes"):
            await self.nodes_manager.aclose(nodes)
