"""F48: two versions on one store, under load: both serve, and no message is lost.

`make rolling` runs longer. No older version has been released: this version is the older one,
and the later ones are copies of it (versions.py).
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web
from redis.asyncio import Redis

from scheduler_api.store.keys import SCHEMA, Keys
from tests.support.configured_store import DURABLE, server
from tests.support.receiver import Receiver
from tests.support.valkey import client
from tests.support.waiting import wait_until
from tests.system.processes import PATIENCE, SERVE, Server, refused_start, serving
from tests.system.versions import ADDED, COMPATIBLE, INCOMPATIBLE, install

MESSAGES: Final = int(os.environ.get("MESSAGES", "150"))  # created in each part of a test
OLDER, LATER, LATEST = (f"scheduler-api/{version}" for version in ("2.0.0", "2.1.0", "3.0.0"))
FAILING: Final = 10  # one in so many needs a second attempt
CALLERS: Final = 4
MOST_HELD: Final = 8
LONG: Final = 60.0 + MESSAGES  # seconds
KEYS: Final = Keys("scheduler")


class Load:
    """Callers that create messages at any of the servers."""

    def __init__(self, receiver: Receiver) -> None:
        self.servers: list[Server] = []  # called in turn
        self.accepted: dict[
            str, Server | None
        ] = {}  # id → the server that answered 201; None: unknown
        self._url = receiver.url
        self._numbers = count()
        self._turns = count()
        self._stopping = False
        self.calling: list[asyncio.Task[None]] = []
        self.held: set[str] = set()  # messages whose first attempt waits for its response
        self._receiver = receiver
        self._answering = asyncio.Event()
        self._answering.set()

    def start(self, *servers: Server) -> None:
        """Begin to create messages at these servers."""
        self.servers = list(servers)
        self.calling = [asyncio.create_task(self._call()) for _ in range(CALLERS)]

    async def more(self) -> None:
        """Wait until MESSAGES further messages are accepted."""
        enough = len(self.accepted) + MESSAGES
        await wait_until("more load", lambda: len(self.accepted) >= enough, LONG)

    async def hold(self) -> None:
        """Hold back the responses to first attempts that will fail; wait until there are some."""
        self.held.clear()
        self._answering.clear()
        await wait_until("attempts without a response", lambda: bool(self.held), LONG)

    async def hand_over(self, server: Server) -> None:
        """Stop a server, and send the held responses when it makes no more attempts."""
        server.send_signal(signal.SIGTERM)
        await server.event("shutdown_requested")
        self._answering.set()
        assert await server.ended() == 0
        await wait_until("a second attempt of each", self._sent_again, LONG)

    def _sent_again(self) -> bool:
        sent = Counter(self._receiver.ids())
        return all(sent[name] == 2 for name in self.held)

    async def answer(self, request: web.Request) -> web.Response:
        """The response of the receiver: 503 to the first attempt of some messages."""
        name = request.headers["Scheduler-Message-Id"]
        if request.headers["Scheduler-Attempt"] != "1" or attempts(name) == 1:
            return web.Response()
        if len(self.held) < MOST_HELD:
            self.held.add(name)
            await self._answering.wait()
        return web.Response(status=503)

    async def stop(self) -> None:
        """Create no more messages; calls that have begun are completed."""
        self._stopping = True
        await asyncio.gather(*self.calling)

    async def _call(self) -> None:
        while not self._stopping:
            await self._create(f"m{next(self._numbers)}")

    async def _create(self, message_id: str) -> None:
        async def accepted() -> bool:
            asked = self.servers[next(self._turns) % len(self.servers)]
            body = {"id": message_id, "webhookUrl": self._url}
            try:
                status, answer, _ = await asked.ask("POST", "/messages", body)
            except aiohttp.ClientError:  # the server has stopped
                return False
            assert status in (201, 409, 503), answer
            if status != 503:  # 409: an earlier call, whose response was lost, has created it
                self.accepted[message_id] = asked if status == 201 else None
            return status != 503

        await wait_until(f"{message_id} accepted", accepted, PATIENCE)


@pytest.fixture
async def load(receiver: Receiver) -> AsyncIterator[Load]:
    """Load that has not begun; the first attempt of some messages will fail."""
    one = Load(receiver)
    receiver.answer = one.answer
    yield one
    for task in one.calling:
        task.cancel()
    await asyncio.gather(*one.calling, return_exceptions=True)


def attempts(message_id: str) -> int:
    """The number of attempts that a message needs."""
    return 2 if int(message_id[1:]) % FAILING == 0 else 1


async def assert_all_arrive(redis: Redis, receiver: Receiver, load: Load) -> None:
    """Each accepted message arrives as often as it must; no other message is left."""

    async def delivered() -> bool:
        return await redis.zcard(f"{KEYS.base}delivered") == len(load.accepted)

    await wait_until("all delivered", delivered, LONG)
    assert Counter(receiver.ids()) == {name: attempts(name) for name in load.accepted}
    kept: Any = await redis.hkeys(f"{KEYS.base}payloads")
    assert {name.decode() for name in kept} == set(load.accepted)


def senders(receiver: Receiver) -> dict[str, list[str]]:
    """Message → the versions that sent it, in order."""
    found: dict[str, list[str]] = {}
    for request in receiver.requests:
        sent = found.setdefault(request.headers["Scheduler-Message-Id"], [])
        sent.append(request.headers["User-Agent"])
    return found


async def both_deliver(receiver: Receiver) -> None:
    """Wait until the older and the later version have sent more."""
    before = len(receiver.requests)

    def seen() -> bool:
        return {one.headers["User-Agent"] for one in receiver.requests[before:]} == {OLDER, LATER}

    await wait_until("both deliver", seen, LONG)


async def added(redis: Redis, name: str) -> set[str]:
    """The fields of a hash that only the later version knows."""
    fields: Any = await redis.hgetall(f"{KEYS.base}{name}")
    return {field.decode() for field, value in fields.items() if ADDED.encode() in value}


async def test_versions_that_run_at_once_lose_no_message_and_keep_unknown_fields(
    tmp_path: Path, receiver: Receiver, load: Load
) -> None:
    later_one = install(tmp_path / "2.1.0", COMPATIBLE)
    own = {"REDIS_URL": f"unix://{tmp_path}/store/s", "REQUEST_TIMEOUT": "10m"}
    async with (
        server(tmp_path / "store", *DURABLE) as address,
        client(address) as redis,
        serving(tmp_path / "older", SERVE, None, **own) as older,
    ):
        load.start(older)
        await load.hold()
        async with serving(tmp_path / "later", SERVE, None, **own, **later_one) as later:
            load.servers = [older, later]
            await both_deliver(receiver)
            await load.more()
            await load.hand_over(older)
            load.servers = [later]
            await load.hold()
            async with serving(tmp_path / "again", SERVE, None, **own) as again:
                load.servers = [later, again]
                await both_deliver(receiver)
                await load.more()
                await load.hand_over(later)
                load.servers = [again]
                await load.more()
                await load.stop()
                await assert_all_arrive(redis, receiver, load)

        sent = senders(receiver)
        assert {*map(tuple, sent.values())} >= {(OLDER,), (LATER,), (OLDER, LATER), (LATER, OLDER)}
        assert await added(redis, "progress") == {name for name in sent if LATER in sent[name]}
        created = {name for name, taken_by in load.accepted.items() if taken_by is later}
        assert await added(redis, "payloads") >= created
        assert await added(redis, "meta") == {"added"}
        assert not older.events("data_refused") + again.events("data_refused")


async def test_data_that_the_older_version_cannot_read_stop_it_under_load(
    tmp_path: Path, receiver: Receiver, load: Load
) -> None:
    environ = install(tmp_path / "3.0.0", INCOMPATIBLE)
    async with (
        server(tmp_path / "store", *DURABLE) as address,
        client(address) as redis,
        serving(tmp_path / "older", REDIS_URL=address) as older,
    ):
        load.start(older)
        await load.more()
        async with serving(
            tmp_path / "latest", SERVE, None, REDIS_URL=address, **environ
        ) as latest:
            load.servers = [older, latest]
            refused = await older.event("data_refused")
            assert (
                f"schema {SCHEMA + 1}, but this version supports only {SCHEMA}" in refused["reason"]
            )
            assert "start the newer version" in refused["reason"]
            await load.more()
            await load.stop()
            await assert_all_arrive(redis, receiver, load)

            status, answer, _ = await older.ask("POST", "/messages", {"webhookUrl": receiver.url})
            assert (status, answer["code"]) == (503, "schema_too_new")
            status, health, _ = await older.ask("GET", "/health")
            assert (status, health["redis"], health["scheduler"]) == (503, "connected", "stopped")
            assert await older.stop() == 0

        assert {*map(tuple, senders(receiver).values())} >= {(OLDER,), (LATEST,)}
        again = refused_start(tmp_path / "older", address)
        assert again.returncode == 1
        assert "start the newer version" in again.stderr
