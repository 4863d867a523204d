"""Clocks jump: that of a replica, and that of the store, which decides everything."""

import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from scheduler_api.delivery.upkeep import sweeper
from tests.faults.conftest import Logs, Service, events, replica
from tests.support.receiver import Received, Receiver
from tests.support.valkey import Valkey, valkey_server
from tests.support.waiting import wait_until
from tests.support.wrong_clock import HOUR, WrongClock
from tests.system.processes import SERVE, Server, serving

pytestmark = pytest.mark.machine

MOST: Final = 60  # longest time of any step, seconds; a wrong clock is an hour off


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """A clock that is right at first."""
    return WrongClock(tmp_path)


async def create_in_each_way(server: Server, receiver: Receiver, name: str) -> list[str]:
    """Create messages with an instant, with a delay, and due now → the ids."""
    instant = (datetime.now(UTC) + timedelta(seconds=1.5)).isoformat()
    ways: dict[str, dict[str, str]] = {
        "at": {"scheduleTo": instant},
        "in": {"delay": "1.5s"},
        "now": {},
    }
    return [
        await server.create(id=f"{way}{name}", webhookUrl=receiver.url, **fields)
        for way, fields in ways.items()
    ]


def right_in_time(request: Received) -> bool:
    """Check that requests are on time, and that their signature's time is right."""
    due = datetime.fromisoformat(request.headers["Scheduler-Scheduled-For"]).timestamp()
    signed_at = int(request.headers["webhook-timestamp"])
    return due <= request.at < due + MOST and abs(signed_at - request.at) < MOST


@pytest.mark.parametrize("jumps", [[HOUR], [-HOUR], [0, HOUR, -HOUR]])
async def test_replica_with_a_wrong_clock_sends_by_the_clock_of_the_store(
    upstream: Valkey, clock: WrongClock, receiver: Receiver, tmp_path: Path, jumps: list[int]
) -> None:
    """F33. Each jump happens while messages wait and are retried."""
    clock.set(jumps[0])
    receiver.statuses = [500]
    ids: list[str] = []
    environ = clock.environ | {"REDIS_URL": upstream.address}
    async with serving(tmp_path, SERVE, None, **environ) as server:
        for number, jump in enumerate(jumps):
            clock.set(jump)
            ids += await create_in_each_way(server, receiver, f"-{number}")
        for message_id in ids:
            await server.reach(message_id, "delivered")
            _, message, _ = await server.ask("GET", f"/messages/{message_id}")
            assert 0 <= message["attempts"][0]["latenessMs"] < MOST * 1000
    assert all(right_in_time(request) for request in receiver.requests)
    assert set(receiver.ids()) == set(ids)
    assert len(receiver.requests) == len(ids) + 1


@pytest.fixture
async def store(clock: WrongClock, tmp_path: Path) -> AsyncIterator[Valkey]:
    """A store with this clock."""
    config = ("appendonly yes", "appendfsync always")
    async with valkey_server(tmp_path, *config, wrapper=clock.wrapper) as server:
        yield server


async def on_the_wire(service: Service, receiver: Receiver) -> list[str]:
    """Create messages whose requests stay open → their ids."""
    receiver.hold.clear()
    ids = [f"open-{number}" for number in range(5)]
    for message_id in ids:
        assert await service.create(id=message_id, webhookUrl=receiver.url) == 201
    await wait_until("open requests", lambda: set(receiver.ids()) >= set(ids))
    return ids


async def test_jump_of_the_stores_clock_loses_nothing_and_sends_nothing_twice(
    store: Valkey, clock: WrongClock, receiver: Receiver, tmp_path: Path, logs: Logs
) -> None:
    """F34. Ahead: early by the jump, as the store's clock decides. Back: what was delayed before
    the jump waits until the clock is there again; what comes after it is on time."""
    async with (
        replica(store.address, tmp_path / "one") as one,
        replica(store.address, tmp_path / "other") as other,
    ):
        assert await one.create(id="early", webhookUrl=receiver.url, delay=HOUR / 2) == 201
        opened = await on_the_wire(one, receiver)
        steady = time.monotonic() + 2.5
        await wait_until("the right of both to reap", lambda: time.monotonic() > steady)

        clock.set(HOUR)
        await wait_until("their notice", lambda: len(events(logs, "store_clock_jumped")) == 2)
        receiver.hold.set()
        for message_id in ("early", *opened):
            await other.reach(message_id, "delivered")
        assert await one.create(id="put-off", webhookUrl=receiver.url, delay=2) == 201

        clock.set(0)
        assert await one.create(id="after", webhookUrl=receiver.url, delay=0.5) == 201
        await one.reach("after", "delivered")
        assert await one.state("put-off") == "scheduled"

        clock.set(HOUR)
        await one.reach("put-off", "delivered")
    assert not events(logs, "leases_reaped") + events(logs, "settle_refused")
    assert sorted(receiver.ids()) == sorted(["early", *opened, "put-off", "after"])


async def test_leases_from_before_the_clock_was_set_back_end_with_their_process(
    store: Valkey,
    clock: WrongClock,
    receiver: Receiver,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F34. By the stored end, the leases would last two hours more."""
    monkeypatch.setattr(sweeper, "SWEEP_INTERVAL", 0.5)
    clock.set(2 * HOUR)
    receiver.hold.clear()
    (tmp_path / "killed").mkdir()
    async with serving(tmp_path / "killed", REDIS_URL=store.address, LEASE="2s") as killed:
        due = datetime.now(UTC).isoformat()  # by the right clock
        await killed.create(id="open", webhookUrl=receiver.url, scheduleTo=due)
        await wait_until("the request", lambda: receiver.ids() == ["open"])
    clock.set(0)
    receiver.hold.set()
    async with replica(store.address, tmp_path / "other") as other:
        await other.reach("open", "delivered")
    assert receiver.ids() == ["open", "open"]


async def test_replica_on_a_machine_that_was_paused_gives_up_what_others_took_over(
    upstream: Valkey, receiver: Receiver, tmp_path: Path
) -> None:
    """All its clocks stood still, so that its leases have not ended by its own clock."""
    clock = WrongClock(tmp_path, monotonic=True)
    environ = {"REDIS_URL": upstream.address, "LEASE": "2s"}
    receiver.hold.clear()
    ids = [str(number) for number in range(20)]
    async with serving(tmp_path / "paused", SERVE, None, **clock.environ, **environ) as paused:
        for message_id in ids:
            await paused.create(id=message_id, webhookUrl=receiver.url)
        await wait_until("open requests", lambda: set(receiver.ids()) == set(ids))
        async with serving(tmp_path / "other", SERVE, None, **environ) as other:
            began = time.monotonic()
            paused.send_signal(signal.SIGSTOP)
            await wait_until("its successor", lambda: len(receiver.requests) == 2 * len(ids), 20)
            clock.set(-round(time.monotonic() - began))
            paused.send_signal(signal.SIGCONT)
            await wait_until(
                "its giving up", lambda: len(paused.events("lease_lost")) == len(ids), 20
            )
            receiver.hold.set()
            for message_id in ids:
                await other.reach(message_id, "delivered")
            for message_id in ("after", "wards"):
                await paused.create(id=message_id, webhookUrl=receiver.url)
                await paused.reach(message_id, "delivered")
    assert Counter(receiver.ids()) == Counter([*ids, *ids, "after", "wards"])
    settled = {it["message_id"] for it in paused.events("message_delivered")}
    assert settled <= {"after", "wards"}
