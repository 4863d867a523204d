"""Several processes over one embedded store."""

import os
import signal
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, Server, free_port, has_store, parent_of, serving

MANY = 200


def uvicorn(port: int) -> tuple[str, ...]:
    """The uvicorn command of the documents."""
    command = "-m uvicorn scheduler_api:app --workers 4"
    return (sys.executable, *command.split(), "--host", "127.0.0.1", "--port", str(port))


async def create_acknowledged(server: Server, message_id: str, url: str) -> None:
    """Repeat until the message is accepted: it is 503 while the store changes its owner."""

    async def accepted() -> bool:
        body = {"id": message_id, "webhookUrl": url}
        try:
            status, answer, _ = await server.ask("POST", "/messages", body)
        except aiohttp.ClientError:  # the connection was that of the killed worker
            return False
        assert status in (201, 409, 503), answer
        return status in (201, 409)

    await wait_until(f"{message_id} accepted", accepted, 20)


def arrivals(receiver: Receiver) -> Counter[str]:
    return Counter(it.headers["Scheduler-Message-Id"] for it in receiver.requests)


async def test_four_workers_share_one_store_and_survive_its_owner(
    tmp_path: Path, receiver: Receiver
) -> None:
    port = free_port()
    async with serving(tmp_path, uvicorn(port), port, LEASE="1h") as server:
        await wait_until("four workers", lambda: len(server.events("store_joined")) == 3, 20)
        [started] = server.events("store_started")

        first = [f"first-{n}" for n in range(MANY)]
        at = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
        for message_id in first:
            await server.create(id=message_id, webhookUrl=receiver.url, scheduleTo=at)
        await wait_until("the first", lambda: len(receiver.requests) >= MANY)
        assert arrivals(receiver) == Counter(first), "each once"

        receiver.hold.clear()
        open_ones = [f"open-{n}" for n in range(20)]
        for message_id in open_ones:
            await server.create(id=message_id, webhookUrl=receiver.url)
        await wait_until("open requests", lambda: set(open_ones) <= set(arrivals(receiver)))
        os.kill(await parent_of(started["pid"]), signal.SIGKILL)
        receiver.hold.set()
        later = [f"later-{n}" for n in range(20)]
        for message_id in later:
            await create_acknowledged(server, message_id, receiver.url)
        for message_id in (
            open_ones + later
        ):  # those of the dead worker too, long before its leases end
            await server.reach(message_id, "delivered")
        assert set(later) <= set(arrivals(receiver))
        takeover = await server.event("store_taken_over")
        assert takeover["timestamp"] > started["timestamp"]
        assert len(server.events("store_started")) == 2
        assert await server.stop() == 0
        assert not has_store(tmp_path)


async def test_uvicorn_prints_a_generated_token_once(tmp_path: Path) -> None:
    port = free_port()
    command = (*uvicorn(port)[:4], "--host", "127.0.0.1", "--port", str(port))
    banners = set[int]()
    for _ in range(2):
        async with serving(tmp_path, command, port, API_TOKEN="") as server:
            token = (tmp_path / "data" / "token").read_text().strip()
            status, _, _ = await server.ask("GET", "/messages", token=token)
            assert status == 200
            banners.add(sum(token in line for line in server.printed()))
            await server.stop()
    assert banners == {2}, "in its line and in the call, at the first start only"


async def test_serve_with_two_workers_delivers_and_stops(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with serving(tmp_path, SERVE, WORKERS="2") as server:
        await server.event("store_joined")
        for n in range(20):
            await server.create(id=str(n), webhookUrl=receiver.url, delay=0.2)
        await wait_until("all twenty", lambda: len(receiver.requests) >= 20)
        receiver.hold.clear()
        await server.create(id="open", webhookUrl=receiver.url)
        await wait_until("an open request", lambda: bool(arrivals(receiver)["open"]))
        server.send_signal(signal.SIGTERM)
        await server.event("dispatcher_drained")  # of the worker without open requests
        receiver.hold.set()
        assert await server.ended() == 0
        assert server.events("message_delivered")[-1]["message_id"] == "open"
        assert not has_store(tmp_path)
    assert arrivals(receiver) == Counter(["open", *map(str, range(20))])
    assert any(server.url in line for line in server.printed())
