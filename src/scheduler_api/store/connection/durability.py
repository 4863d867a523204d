"""How safe stored messages are: weak settings of the store, and confirmation by a replica."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import structlog
from redis import exceptions
from redis.asyncio import RedisCluster

from scheduler_api.domain.errors import OutcomeUnknown
from scheduler_api.store.connection.client import Client

log = structlog.get_logger()

COPY_TIMEOUT_MS: Final = 1_500  # for a replica to confirm a message; less than STORE_TIMEOUT
_UNKNOWN_SETTING: Final = "unknown"
_FIRST_WITH_WAITAOF: Final = (7, 2)  # version

Command = tuple[str | int, ...]


class ServerInfo(NamedTuple):
    """What one server of the store reports about itself."""

    name: str  # of a node of a cluster; empty otherwise
    info: Mapping[str, Any]  # the reply to INFO
    target: Mapping[str, Any]  # arguments that send a call to this server


class Durability:
    """What the settings of the store guarantee, and the wait for a replica if one is required."""

    def __init__(self, redis: Client, *, replica: bool) -> None:
        """`replica`: whether a message counts as stored only when a replica has it."""
        self.replica = replica
        self.warnings: list[str] = []  # each names a weak setting and what to set
        self._redis = redis
        self._run_ids: set[str] = set()  # of the servers; they change at a restart or failover
        self._wait_commands: tuple[Command, ...] = ()

    async def refresh(self) -> None:
        """Read the settings of new servers, and log new warnings. Raises: RedisError."""
        servers = await read_info(self._redis)
        run_ids = {server.info["run_id"] for server in servers}
        if run_ids == self._run_ids:
            return
        before, self.warnings = self.warnings, await self._read_warnings(servers)
        self._wait_commands = _wait_commands(servers[0].info)
        self._run_ids = run_ids
        for warning in self.warnings:
            if warning not in before:
                log.warning("store_not_durable", reason=warning)

    async def _read_warnings(self, servers: Sequence[ServerInfo]) -> list[str]:
        """Each weakness once, for a cluster with the names of its nodes."""
        found: dict[str, list[str]] = {}
        for name, info, target in servers:
            fsync = await _appendfsync(self._redis, target) if info["aof_enabled"] else ""
            for weakness in _weaknesses(info, fsync, self.replica):
                found.setdefault(weakness, []).append(name)
        return [f"{weakness}{_on(names)}" for weakness, names in found.items()]

    async def wait_commands(self) -> tuple[Command, ...]:
        """The commands that wait until the writes of their connection have copies."""
        if not self._wait_commands:
            await self.refresh()
        return self._wait_commands


def check_copies(replies: Sequence[int | list[int]]) -> None:
    """Check the replies to the wait commands. Raises: OutcomeUnknown, if a copy is missing."""
    copies = (reply if isinstance(reply, int) else reply[0] for reply in replies)
    if min(copies) < 1:
        raise OutcomeUnknown


async def read_info(redis: Client, section: str | None = None) -> list[ServerInfo]:
    """INFO of the server, or of each primary of a cluster that answers. Raises: RedisError."""
    if not isinstance(redis, RedisCluster):
        return [ServerInfo("", await redis.info(section), {})]
    await redis.initialize()
    nodes = redis.get_primaries()
    replies = await asyncio.gather(
        *(redis.info(section, target_nodes=node) for node in nodes), return_exceptions=True
    )
    found = [
        ServerInfo(node.name, info, {"target_nodes": node})
        for node, info in zip(nodes, replies, strict=True)
        if not isinstance(info, BaseException)  # its run id is new when it is back
    ]
    if not found:
        raise exceptions.ConnectionError("no node of the cluster answers")
    return found


def _on(names: Sequence[str]) -> str:
    return f" (on {', '.join(names)})" if any(names) else ""


async def _appendfsync(redis: Client, target: Mapping[str, Any]) -> str:
    try:
        found: Mapping[Any, Any] = await redis.config_get("appendfsync", **target)
    except exceptions.ResponseError:  # managed services forbid or remove CONFIG
        return _UNKNOWN_SETTING
    return str(found.get("appendfsync", _UNKNOWN_SETTING))


def _weaknesses(info: Mapping[str, Any], fsync: str, replica: bool) -> Iterator[str]:
    if not info["aof_enabled"]:
        yield (
            "appendonly is no: a crash of the store loses all changes since the last snapshot; "
            "set appendonly yes and appendfsync always"
        )
    elif fsync == _UNKNOWN_SETTING:
        yield "appendfsync is unknown because CONFIG GET is not allowed; make sure it is always"
    elif fsync != "always":
        yield f"appendfsync is {fsync}: a crash may lose the newest messages; set it to always"
    policy = info.get("maxmemory_policy", _UNKNOWN_SETTING)
    if policy != "noeviction":
        yield f"maxmemory-policy is {policy}: a full store may drop messages; set it to noeviction"
    if replica and not info["connected_slaves"]:
        yield "DURABILITY is replica, but the store has no replica: new messages get 503"


def _wait_commands(info: Mapping[str, Any]) -> tuple[Command, ...]:
    """For the disk of the server, if it has WAITAOF, and for the memory of a replica.

    Not for the disk of a replica: it reports only once per second, with any appendfsync.
    """
    replica: Command = ("WAIT", 1, COPY_TIMEOUT_MS)
    version = tuple(int(part) for part in info["redis_version"].split(".")[:2])
    if info["aof_enabled"] and version >= _FIRST_WITH_WAITAOF:
        return ("WAITAOF", 1, 0, COPY_TIMEOUT_MS), replica
    return (replica,)
