"""Replicas and their store, all of which a campaign may kill."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from redis.asyncio import Redis

from scheduler_api.store.connection.client import connect
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.keys import Keys
from tests.crash.history import Kill
from tests.support.command_line import Done, run_in
from tests.support.external_store import PASSWORD, ExternalStore
from tests.support.fault_proxy import FaultProxy, proxying, script_names
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, Server, free_port, serving

PREFIX: Final = "scheduler"
PARTITIONS: Final = 2
CONCURRENCY: Final = 6  # limit of a destination in a partition; low, so that messages wait


class Replica:
    """One process of the service, started again and again in its own folder."""

    def __init__(self, folder: Path, proxy: FaultProxy | None, environ: dict[str, str]) -> None:
        folder.mkdir()
        self.folder = folder
        self.proxy = proxy  # between it and an external store
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environ = environ
        self._stack = AsyncExitStack()
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        """The process of the newest start."""
        assert self._server
        return self._server

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        context = serving(self.folder, SERVE, self.port, **self.environ)
        self._server = await self._stack.enter_async_context(context)

    async def ended(self) -> int:
        """Wait for its end, and clean up → exit code."""
        code = await self.server.ended()
        await self.clear()
        return code

    async def clear(self) -> None:
        """End it in any state."""
        if self.proxy:
            self.proxy.watch = None
            self.proxy.reset()
        await self._stack.aclose()

    def worker_ids(self) -> set[str]:
        """The worker ids of its claims: the names of the locks that the process has open."""
        descriptors = Path(f"/proc/{self.server.process.pid}/fd")
        opened = {_target(it) for it in descriptors.iterdir()}
        return {it.stem for it in opened if it.parent.name == "processes"}


def _target(link: Path) -> Path:
    try:
        return link.readlink()
    except OSError:  # closed meanwhile
        return Path()


class Fleet:
    """Replicas and their store: what is in flight, and how to end each."""

    def __init__(self, replicas: list[Replica], redis: Redis, store: ExternalStore | None) -> None:
        """`redis`: a connection without a proxy; `store`: None if it is embedded."""
        self.replicas = replicas
        self.redis = redis
        self._store = store

    async def start(self) -> None:
        """Start all replicas."""
        await asyncio.gather(*(replica.start() for replica in self.replicas))

    async def clear(self) -> None:
        """End all replicas."""
        for replica in self.replicas:
            await replica.clear()

    async def claims(self) -> dict[str, str]:
        """Message in flight → worker id of its claim."""
        found: dict[str, str] = {}
        for partition in range(PARTITIONS):
            key = f"{Keys(PREFIX, partition).base}claims"
            claims: Any = await self.redis.hgetall(key)
            found |= {it.decode(): claim.split(b" ")[1].decode() for it, claim in claims.items()}
        return found

    async def holder(self, message_id: str) -> Replica | None:
        """The replica that has claimed this message."""
        worker_id = (await self.claims()).get(message_id)
        alive = [it for it in self.replicas if it.server.process.poll() is None]
        return next((it for it in alive if worker_id in it.worker_ids()), None)

    async def stop(self, replica: Replica, what: str) -> Kill:
        """SIGSTOP; then the number of its messages in flight is known."""
        replica.server.send_signal(signal.SIGSTOP)
        worker_ids, claims = replica.worker_ids(), await self.claims()
        return Kill(what, time.time(), {it for it, owner in claims.items() if owner in worker_ids})

    async def kill(self, replica: Replica, what: str) -> Kill:
        """SIGKILL."""
        kill = await self.stop(replica, what)
        replica.server.send_signal(signal.SIGKILL)
        return kill

    async def kill_store(self) -> Kill:
        """SIGKILL the store, and wait until it runs again."""
        kill = Kill("store", time.time(), set(await self.claims()))
        if self._store:
            await self._store.stop(signal.SIGKILL)
            await self._store.start()
        else:
            before = self._store_started()
            os.kill(int(before["pid"]), signal.SIGKILL)
            await wait_until("the store again", lambda: self._store_started() != before, 20)
        return kill

    def owner(self) -> Replica:
        """The replica that started the embedded store last."""
        return max(self.replicas, key=lambda it: str(_last_start(it).get("timestamp", "")))

    def _store_started(self) -> dict[str, Any]:
        return _last_start(self.owner())

    async def fsck(self) -> Done:
        """Run `scheduler-api fsck` beside the replicas."""
        replica = self.replicas[0]
        return await run_in(replica.folder, "fsck", stdin=b"", **replica.environ)


def _last_start(replica: Replica) -> dict[str, Any]:
    """The last start of the embedded store by this replica; empty if there was none."""
    return next(reversed(replica.server.events("store_started")), {})


def _settings(lease: float, **more: str) -> dict[str, str]:
    return {
        "LEASE": f"{lease}s",
        "PARTITIONS": str(PARTITIONS),
        "SHUTDOWN_GRACE": "5s",  # the embedded store's owner waits so long for the others
        "REDIS_PREFIX": PREFIX,
        "DESTINATION_CONCURRENCY": str(PARTITIONS * CONCURRENCY),
        **more,
    }


@asynccontextmanager
async def external_fleet(folder: Path, count: int, lease: float) -> AsyncIterator[Fleet]:
    """As on several machines: a DATA_DIR for each replica, a proxy between each and the store,
    which syncs each write."""
    async with AsyncExitStack() as stack:
        store = ExternalStore(folder)
        stack.push_async_callback(store.stop)
        await store.start()
        replicas = []
        for number in range(count):
            names = script_names(partitions=PARTITIONS)
            opening = proxying(("127.0.0.1", store.port), names=names)
            proxy = await stack.enter_async_context(opening)
            address = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(proxy.port)}
            environ = _settings(lease, REDIS_PASSWORD=PASSWORD, **address)
            replicas.append(Replica(folder / f"replica-{number}", proxy, environ))
        async with _started(replicas, store.address, store) as fleet:
            yield fleet


@asynccontextmanager
async def embedded_fleet(folder: Path, count: int, lease: float) -> AsyncIterator[Fleet]:
    """On one machine: one DATA_DIR, its store owned by one of the replicas."""
    data = folder / "shared"
    environ = _settings(lease, DATA_DIR=str(data))
    replicas = [Replica(folder / f"replica-{number}", None, environ) for number in range(count)]
    address = f"unix://{quote(str(EmbeddedStore(data).socket))}"
    async with _started(replicas, address, None) as fleet:
        yield fleet


@asynccontextmanager
async def _started(
    replicas: list[Replica], address: str, store: ExternalStore | None
) -> AsyncIterator[Fleet]:
    redis = connect(address)
    fleet = Fleet(replicas, redis, store)
    try:
        await fleet.start()
        yield fleet
    finally:
        await fleet.clear()
        await redis.aclose()
        await redis.connection_pool.disconnect()
