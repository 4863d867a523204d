"""How far a message is safe that the store has taken; asked by store.py whenever it was found."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import structlog
from redis import exceptions
from redis.asyncio import RedisCluster

from scheduler_api.domain.errors import OutcomeUnknown
from scheduler_api.store.connection.client import Client

log = structlog.get_logger()

COPY_WITHIN: Final = 1_500  # ms that a replica may take to have a message; less than TIMEOUT
_UNKNOWN: Final = "unknown"
_KNOWS_WAITAOF: Final = (7, 2)  # version

Command = tuple[str | int, ...]
# Its name, what it tells of itself, and what makes a call of the client one of it.
Server = tuple[str, Mapping[str, Any], Mapping[str, Any]]


class Durability:
    """What the store's own settings promise, and the wait for a replica if one is wanted."""

    def __init__(self, redis: Client, *, replica: bool) -> None:
        """`replica`: whether a new message must be there too before it counts as stored."""
        self.replica = replica
        self.warnings: list[str] = []  # each names a setting and says what would be right
        self._redis = redis
        self._run_ids: set[str] = set()  # of the servers: others after a restart or failover
        self._waits: tuple[Command, ...] = ()

    async def look(self) -> None:
        """Ask servers that were not asked before, and log what weakens them. Raises: RedisError."""
        found = await servers(self._redis)
        run_ids = {info["run_id"] for _, info, _ in found}
        if run_ids == self._run_ids:
            return
        before, self.warnings = self.warnings, await self._told(found)
        self._waits = _waits(found[0][1])
        self._run_ids = run_ids
        for warning in self.warnings:
            if warning not in before:
                log.warning("store_not_durable", reason=warning)

    async def _told(self, servers: Sequence[Server]) -> list[str]:
        """Each weakness once; of a cluster with the nodes that have it."""
        found: dict[str, list[str]] = {}
        for name, info, where in servers:
            fsync = await _appendfsync(self._redis, where) if info["aof_enabled"] else ""
            for weakness in _weaknesses(info, fsync, self.replica):
                found.setdefault(weakness, []).append(name)
        return [f"{weakness}{_on(names)}" for weakness, names in found.items()]

    async def waits(self) -> tuple[Command, ...]:
        """The commands that wait for copies of what their connection has written."""
        if not self._waits:
            await self.look()
        return self._waits


def confirm(copies: Sequence[int | list[int]]) -> None:
    """Take the replies of those commands. Raises: OutcomeUnknown, if a copy is not made in time."""
    disks_or_replicas = (told if isinstance(told, int) else told[0] for told in copies)
    if min(disks_or_replicas) < 1:
        raise OutcomeUnknown


async def servers(redis: Client, section: str | None = None) -> list[Server]:
    """The one, or each of a cluster's primaries that answers. Raises: RedisError, if none does."""
    if not isinstance(redis, RedisCluster):
        return [("", await redis.info(section), {})]
    await redis.initialize()
    nodes = redis.get_primaries()
    told = await asyncio.gather(
        *(redis.info(section, target_nodes=node) for node in nodes), return_exceptions=True
    )
    found: list[Server] = [
        (node.name, info, {"target_nodes": node})
        for node, info in zip(nodes, told, strict=True)
        if not isinstance(info, BaseException)  # it is asked when it is back, as another run
    ]
    if not found:
        raise exceptions.ConnectionError("no node of the cluster answers")
    return found


def _on(names: Sequence[str]) -> str:
    return f" (on {', '.join(names)})" if any(names) else ""


async def _appendfsync(redis: Client, where: Mapping[str, Any]) -> str:
    try:
        found: Mapping[Any, Any] = await redis.config_get("appendfsync", **where)
    except exceptions.ResponseError:  # managed services forbid it, or take the command away
        return _UNKNOWN
    return str(found.get("appendfsync", _UNKNOWN))


def _weaknesses(info: Mapping[str, Any], fsync: str, replica: bool) -> Iterator[str]:
    if not info["aof_enabled"]:
        yield (
            "appendonly is no: what came after the last snapshot is lost with the store's "
            "process; set appendonly yes and appendfsync always"
        )
    elif fsync == _UNKNOWN:
        yield "appendfsync is unknown, as CONFIG GET is not allowed: see that it is always"
    elif fsync != "always":
        yield f"appendfsync is {fsync}: a crash may take the last messages; set it to always"
    policy = info.get("maxmemory_policy", _UNKNOWN)
    if policy != "noeviction":
        yield f"maxmemory-policy is {policy}: a full store may drop messages; set it to noeviction"
    if replica and not info["connected_slaves"]:
        yield "DURABILITY is replica, but the store has none: new messages are answered 503"


def _waits(info: Mapping[str, Any]) -> tuple[Command, ...]:
    """For the server's disk where it can tell, and for a replica's memory.

    Not for a replica's disk: it tells of that once a second, whatever its appendfsync.
    """
    replica: Command = ("WAIT", 1, COPY_WITHIN)
    version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if info["aof_enabled"] and version >= _KNOWS_WAITAOF:
        return ("WAITAOF", 1, 0, COPY_WITHIN), replica
    return (replica,)
