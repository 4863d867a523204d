"""The service stops and starts: what was accepted arrives, what is open ends."""

import signal
import time
from pathlib import Path

import pytest

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import has_store, serving


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_message_survives_a_stop_and_is_sent_after_the_next_start(
    tmp_path: Path, receiver: Receiver, number: signal.Signals
) -> None:
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url, delay=1)
        assert await server.stop(number) == 0
        assert not has_store(tmp_path), "the store ends with the service"
    assert not receiver.requests
    async with serving(tmp_path) as server:
        await server.reach("m", "delivered")
    assert len(receiver.requests) == 1


async def test_a_message_survives_kill_9(tmp_path: Path, receiver: Receiver) -> None:
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url, delay=1)
        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    async with serving(tmp_path) as server:
        await server.reach("m", "delivered")
    assert len(receiver.requests) == 1


async def test_what_a_killed_process_held_is_sent_at_once_after_its_restart(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.hold.clear()
    async with serving(tmp_path, LEASE="1h") as server:
        for n in range(20):
            await server.create(id=str(n), webhookUrl=receiver.url)
        await wait_until("open requests", lambda: len(receiver.requests) == 20)
        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    receiver.hold.set()
    async with serving(tmp_path, LEASE="1h") as server:
        for n in range(20):
            await server.reach(str(n), "delivered")
        assert (await server.event("claims_recovered"))["returned"] == 20
    assert len(receiver.requests) == 40


async def test_an_open_request_ends_and_is_settled_before_the_service_stops(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.hold.clear()
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url)
        await wait_until("the request", lambda: len(receiver.requests) == 1)
        server.tell(signal.SIGTERM)
        await server.event("stopping")
        assert server.process.poll() is None
        receiver.hold.set()
        assert await server.ended() == 0
        assert server.events("message_delivered")
    async with serving(tmp_path) as server:
        assert await server.state("m") == "delivered"
    assert len(receiver.requests) == 1


async def test_a_second_signal_ends_the_service_at_once(tmp_path: Path, receiver: Receiver) -> None:
    receiver.hold.clear()
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url)
        await wait_until("the request", lambda: len(receiver.requests) == 1)
        server.tell(signal.SIGTERM)
        await server.event("stopping")
        asked = time.monotonic()
        assert await server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - asked < 5
    async with serving(tmp_path) as server:
        _, message, _ = await server.ask("GET", "/messages/m")
        assert message["state"] == "retrying"
        assert [it["error"] for it in message["attempts"]] == ["shutdown"]
