"""Starts every kind of store that the service runs on, on loopback, and removes it afterwards.

ENGINE chooses that of the tests: `embedded` (the default), `redis` (Debian's redis-server),
`cluster` (three nodes) or `sentinel` (a master with a replica, after a failover); the last two are
made of the embedded store's binary. `redis+tls`, `cluster+tls` and `sentinel+tls` are Debian's
redis-server over TLS, as the embedded store's binary knows none. PARTITIONS divides the store of
the API's and the dispatcher's tests. `make engines` runs them all.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import trustme
from redis.asyncio import RedisCluster
from redis.exceptions import RedisError, ResponseError

from scheduler_api.store.connection import client as client_module
from scheduler_api.store.connection.client import Client, close, connect, open_client
from scheduler_api.store.embedded.launch import find_binary
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from tests.support.waiting import wait_until
from tests.system.processes import free_port

CHOSEN = os.environ.get("ENGINE", "embedded")
PARTITIONS = int(
    os.environ.get("PARTITIONS", "1")
)  # of the store in store, dispatcher and API tests
MASTER = "scheduler"  # name of the master
SLOTS = 16_384
HASTY = ("appendonly yes", "appendfsync no")  # as for the embedded store of the tests
QUICK = 500  # ms without an answer after which a server counts as down
PATIENT = 30_000  # ms, for tests without a failover
PATIENCE = 30.0  # seconds for servers to find each other on a busy machine


class Certificate:
    """The certificate of all servers of a test, and its issuer."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.authority, self.chain, self.key = (
            folder / name for name in ("authority.pem", "chain.pem", "key.pem")
        )
        authority.cert_pem.write_to_path(self.authority)
        issued.cert_chain_pems[0].write_to_path(self.chain)
        issued.private_key_pem.write_to_path(self.key)

    def lines(self, port: int) -> tuple[str, ...]:
        """Lines of configuration of a server that speaks TLS only, to any client."""
        return (
            *("port 0", f"tls-port {port}", "tls-auth-clients no"),
            *("tls-replication yes", "tls-cluster yes"),
            *(f"tls-cert-file {self.chain}", f"tls-key-file {self.key}"),
            f"tls-ca-cert-file {self.authority}",
        )


class Server:
    """A valkey-server or a sentinel; with a certificate, Debian's redis-server."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        sentinel: bool = False,
        certificate: Certificate | None = None,
    ) -> None:
        """`options`: further lines of its configuration."""
        self.port = free_port()
        self.bus = free_port()  # port of the cluster bus
        self.folder = folder / str(self.port)
        self._sentinel = sentinel
        self.certificate = certificate  # the embedded store's binary has no TLS
        listening = certificate.lines(self.port) if certificate else (f"port {self.port}",)
        self._lines = [*listening, "bind 127.0.0.1", *options]
        if not sentinel:
            self._lines.append(f"cluster-port {self.bus}")
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Run it, and wait until it answers."""
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "server.conf"
        if not config.exists():  # a sentinel writes its state into it
            config.write_text(
                "\n".join([*self._lines, f"dir {self.folder}", "logfile server.log", ""])
            )
        arguments = [str(config), *(["--sentinel"] if self._sentinel else [])]
        self._process = await asyncio.create_subprocess_exec(
            redis_binary() if self.certificate else find_binary(),
            *arguments,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        await wait_until(f"the server on port {self.port}", self._answers, PATIENCE)

    async def kill(self) -> None:
        """End it with SIGKILL."""
        if self._process and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def ask(self, *command: Any) -> Any:
        """Run one command on a new connection."""
        client = connect(address("redis", [self]))
        try:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]
        finally:
            await close(client)

    async def _answers(self) -> bool:
        try:
            return bool(await self.ask("PING"))
        except (RedisError, OSError):
            return False


def concerns(fixtures: Sequence[str]) -> bool:
    """Whether a test with these fixtures runs on the chosen engine."""
    alone = CHOSEN in ("embedded", "redis")
    return "valkey" in fixtures and (alone or "socket" not in fixtures)


def everywhere(redis: Client) -> dict[str, Any]:
    """Arguments that send a command to every node of a cluster."""
    return {"target_nodes": RedisCluster.PRIMARIES} if isinstance(redis, RedisCluster) else {}


def at(redis: Client, key: str) -> dict[str, Any]:
    """Arguments that send a command to the node that has the key."""
    if not isinstance(redis, RedisCluster):
        return {}
    return {"target_nodes": redis.get_node_from_key(key)}


def open_with_timeout(address: str, seconds: float) -> Client:
    """A client as the product opens it, but with another time limit of its calls."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client_module, "STORE_TIMEOUT", seconds)
        return open_client(address)


@asynccontextmanager
async def opened(address: str) -> AsyncIterator[Client]:
    """A client as the product opens it, closed at the end."""
    client = open_client(address)
    try:
        yield client
    finally:
        await close(client)


@asynccontextmanager
async def running(engine: str, folder: Path, *, failed_over: bool = False) -> AsyncIterator[str]:
    """Run a store of that kind → its address; `failed_over`: a former replica is the master."""
    kind, _, encrypted = engine.partition("+")
    certificate = Certificate(folder) if encrypted else None
    async with AsyncExitStack() as stack:
        if kind == "cluster":
            nodes = await stack.enter_async_context(
                cluster(folder, *HASTY, certificate=certificate)
            )
            yield address("redis+cluster", nodes)
        elif kind == "sentinel":
            pair = await stack.enter_async_context(
                watched_pair(folder, *HASTY, away_after=PATIENT, certificate=certificate)
            )
            if failed_over:
                await fail_over(*pair)
            yield address("redis+sentinel", pair[-1:], f"/{MASTER}")
        elif certificate:
            server = Server(folder, *HASTY, certificate=certificate)
            stack.push_async_callback(server.kill)
            await server.start()
            yield address("redis", [server])
        else:
            yield await stack.enter_async_context(_alone(engine, folder))


@asynccontextmanager
async def _alone(engine: str, folder: Path) -> AsyncIterator[str]:
    binary = {"embedded": find_binary, "redis": redis_binary}[engine]()
    server = EmbeddedStore(folder, fsync="no", binary=binary)
    await server.start()
    try:
        yield f"unix://{server.socket}"
    finally:
        await server.stop()


def redis_binary() -> Path:
    """The redis-server in PATH; it is an error if there is none."""
    found = shutil.which("redis-server")
    assert found, "There is no redis-server on PATH: on Debian, apt-get install redis-server"
    return Path(found)


def address(scheme: str, servers: Sequence[Server], path: str = "") -> str:
    """The URL of these servers, with TLS if they speak TLS."""
    places = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    certificate = servers[0].certificate
    if certificate is None:
        return f"{scheme}://{places}{path}"
    encrypted = scheme.replace("redis", "rediss", 1)
    return f"{encrypted}://{places}{path}?ssl_ca_certs={quote(str(certificate.authority))}"


@asynccontextmanager
async def cluster(
    folder: Path, *options: str, certificate: Certificate | None = None
) -> AsyncIterator[list[Server]]:
    """Three nodes, each with a third of the slots."""
    async with AsyncExitStack() as stack:
        nodes = []
        for _ in range(3):
            enabled = ("cluster-enabled yes", 'save ""', *options)
            node = Server(folder, *enabled, certificate=certificate)
            stack.push_async_callback(node.kill)
            await node.start()
            nodes.append(node)
        await _join(nodes)
        yield nodes


async def _join(nodes: Sequence[Server]) -> None:
    share = SLOTS // len(nodes) + 1
    for number, node in enumerate(nodes):
        last = min(SLOTS, (number + 1) * share) - 1
        await node.ask("CLUSTER", "ADDSLOTSRANGE", number * share, last)
        await node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for node in nodes[1:]:
        await nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus)

    async def whole() -> bool:
        replies = [await node.ask("CLUSTER", "INFO") for node in nodes]
        return all(b"cluster_state:ok" in info for info in replies)

    async def known() -> bool:
        replies = [await node.ask("CLUSTER", "NODES") for node in nodes]
        return all(lines.count(b"\n") == len(nodes) for lines in replies)

    await wait_until("nodes that know each other", known, PATIENCE)
    await wait_until("a whole cluster", whole, PATIENCE)


@asynccontextmanager
async def watched_pair(
    folder: Path,
    *options: str,
    sentinels: int = 1,
    away_after: int = QUICK,
    certificate: Certificate | None = None,
) -> AsyncIterator[tuple[Server, ...]]:
    """A master, its replica, and sentinels that watch them, of which a majority must agree."""
    async with AsyncExitStack() as stack:

        async def started(*lines: str, sentinel: bool = False) -> Server:
            server = Server(folder, *lines, sentinel=sentinel, certificate=certificate)
            stack.push_async_callback(server.kill)
            await server.start()
            return server

        lines = ("repl-diskless-sync-delay 0", *options)
        master = await started(*lines)
        replica = await started(f"replicaof 127.0.0.1 {master.port}", *lines)
        watching = (
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} {sentinels // 2 + 1}",
            f"sentinel down-after-milliseconds {MASTER} {away_after}",
            f"sentinel failover-timeout {MASTER} 5000",
        )
        watchers = [await started(*watching, sentinel=True) for _ in range(sentinels)]

        async def in_step() -> bool:
            found = await master.ask("INFO", "replication")
            return bool(found.get("slave0", {}).get("state") == "online")

        async def known() -> bool:
            replies = [await one.ask("SENTINEL", "MASTER", MASTER) for one in watchers]
            return all(
                (int(it[b"num-slaves"]), int(it[b"num-other-sentinels"])) == (1, sentinels - 1)
                for it in replies
            )

        await wait_until("a replica in step", in_step, PATIENCE)
        await wait_until("sentinels that know it and each other", known, PATIENCE)
        yield master, replica, *watchers


async def promoted(replica: Server, sentinel: Server) -> None:
    """Wait until the sentinel reports it as the master."""

    async def called() -> bool:
        _, port = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        with suppress(RedisError):  # a promotion closes its connections
            replies = await replica.ask("INFO", "replication")
            return int(port) == replica.port and bool(replies["role"] == "master")
        return False

    await wait_until("the replica in its master's place", called, PATIENCE)


async def fail_over(master: Server, replica: Server, sentinel: Server) -> None:
    """Make the replica the master, and the master its replica."""

    async def ordered() -> bool:
        try:
            return bool(await sentinel.ask("SENTINEL", "FAILOVER", MASTER))
        except ResponseError:  # it has not yet seen that the replica is ready
            return False

    async def swapped() -> bool:
        _, port = await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER)
        with suppress(RedisError):  # a change of role closes connections
            follows = await master.ask("INFO", "replication")
            return int(port) == replica.port and follows.get("master_link_status") == "up"
        return False

    await wait_until("a sentinel that begins", ordered, PATIENCE)
    await wait_until("the replica in its master's place", swapped, PATIENCE)
