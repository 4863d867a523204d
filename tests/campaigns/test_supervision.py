"""Processes of the service end in every way; nothing is lost, nothing stays, the next start works.

One service after the other runs in the same folder on the same port, so that each start is also the
proof that the end before it left nothing in the way.
"""

import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.configured_store import server as store_server
from tests.support.external_store import ExternalStore
from tests.support.receiver import Receiver
from tests.support.valkey import client
from tests.support.waiting import wait_until
from tests.system.conftest import external_store
from tests.system.processes import SERVE, Server, free_port, refused_start, serving
from tests.system.tree import kill, store_pid, until_nothing_is_left, until_workers

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(120)]

__all__ = ["external_store"]  # the fixture

KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT
# Signals to the parent, one after the other → exit code.
ENDS: Final[tuple[tuple[tuple[signal.Signals, ...], int], ...]] = (
    ((TERM,), 0),
    ((INT,), 0),
    ((TERM, TERM), 0),
    ((INT, INT), 0),
    ((KILL,), -KILL),
)
EACH: Final = 5  # messages that wait while a process ends


class Campaign:
    """What is done to one service after the other, and what must have arrived in the end."""

    def __init__(self, folder: Path, receiver: Receiver, workers: int, store: ExternalStore | None):
        self.folder = folder
        self.port = free_port()
        self.receiver = receiver
        self.workers = workers
        self.store = store
        self.created: list[str] = []
        self.counts = Counter[str]()

    @asynccontextmanager
    async def service(self) -> AsyncIterator[Server]:
        """The next one."""
        environ = self.store.environ if self.store else {}
        environ |= {"WORKERS": str(self.workers), "SHUTDOWN_GRACE": "3s"}
        async with serving(self.folder, SERVE, self.port, **environ) as one:
            self.counts["starts"] += 1
            yield one

    async def create(self, service: Server) -> None:
        """Messages that fall due soon."""
        for _ in range(EACH):
            name = str(len(self.created))
            await service.create(id=name, webhookUrl=self.receiver.url, delay=0.5)
            self.created.append(name)

    async def end(self, signals: tuple[signal.Signals, ...], code: int, *, away: bool) -> None:
        """Start, create, end in that way; with the store `away` or not."""
        async with self.service() as service:
            await self.create(service)
            if self.workers > 1:
                await until_workers(service, self.workers)
            if self.store and away:
                await self.store.stop()
            for number in signals:
                if service.process.poll() is None:
                    service.send_signal(number)
            assert await service.ended() == code, service.logged()[-20:]
            await until_nothing_is_left(service)
            if self.store and away:
                await self.store.start()
        self.counts["ends of the service"] += 1

    async def replace(self, service: Server) -> None:
        """Kill each process but the parent, alone and together, and see them come back."""
        for victims in (1, self.workers):
            old = await until_workers(service, self.workers)
            await self.create(service)
            kill(*old[:victims])
            await until_workers(service, self.workers, but=tuple(old[:victims]))
            await service.ready()
            self.counts["workers killed"] += victims
        if not self.store:
            starts = len(service.events("store_started"))
            kill(store_pid(service))
            await wait_until(
                "the store again", lambda: len(service.events("store_started")) > starts, 20
            )
            await service.ready()
            self.counts["stores killed"] += 1
        assert service.process.poll() is None

    async def judge(self, service: Server) -> None:
        """All that was created is delivered."""
        for name in self.created:
            await service.reach(name, "delivered")
        assert set(self.receiver.ids()) == set(self.created)
        self.counts["messages"] += len(self.created)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("kind", ["embedded", "external, away"])
async def test_processes_that_end_in_any_way_lose_nothing_and_leave_nothing(
    tmp_path: Path, receiver: Receiver, external_store: ExternalStore, workers: int, kind: str
) -> None:
    store = None if kind == "embedded" else external_store
    campaign = Campaign(tmp_path, receiver, workers, store)
    for signals, code in ENDS:
        await campaign.end(signals, code, away=kind.endswith("away"))
    async with campaign.service() as service:
        if workers > 1:
            await campaign.replace(service)
        await campaign.judge(service)
        assert await service.stop() == 0
        await until_nothing_is_left(service)
    print(f"\nsupervision, {workers} workers, {kind}: {dict(campaign.counts)}, orphans 0, lost 0")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_start_that_is_refused_prints_a_reason_and_fails(
    tmp_path: Path, workers: str
) -> None:
    codes = {}
    async with store_server(tmp_path / "store", "appendonly yes", "appendfsync always") as address:
        async with client(address) as redis:
            hset: Any = redis.execute_command
            await hset("HSET", "new:{0}:meta", "schema", "999")
            await hset("HSET", "parted:{0}:meta", "schema", "1", "partitions", "4")
        cases: dict[str, dict[str, str]] = {
            "schema too new": {"REDIS_PREFIX": "new"},
            "other partitions": {"REDIS_PREFIX": "parted"},
        }
        for name, environ in cases.items():
            codes[name] = refused_start(tmp_path, address, WORKERS=workers, **environ)
    weak = ("appendonly yes", "appendfsync everysec")
    async with store_server(tmp_path / "weak", *weak) as address:
        codes["not durable"] = refused_start(tmp_path, address, WORKERS=workers, STRICT="1")
    away = f"redis://127.0.0.1:{free_port()}"
    codes["store away, strict"] = refused_start(tmp_path, away, WORKERS=workers, STRICT="1")
    codes["wrong setting"] = refused_start(tmp_path, "", WORKERS=workers, LEASE="never")
    broken = tmp_path / "data" / "appendonlydir"
    broken.mkdir(parents=True)
    (broken / "appendonly.aof.manifest").write_text("broken\n")
    codes["broken data"] = refused_start(tmp_path, "", WORKERS=workers)
    (tmp_path / "data" / "token").touch()
    codes["empty token file"] = refused_start(tmp_path, "", WORKERS=workers, API_TOKEN="")
    refusals = {
        name: (done.returncode, done.stderr.splitlines()[-1:]) for name, done in codes.items()
    }
    wrong = {"wrong setting", "empty token file"}
    assert {name: code for name, (code, _) in refusals.items()} == {
        name: 2 if name in wrong else 1 for name in refusals
    }, refusals
    assert all(line for _, line in refusals.values())
    print(f"\nsupervision, {workers} workers: {len(refusals)} kinds of refused starts")
