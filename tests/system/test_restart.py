"""The service stops and starts: accepted messages arrive, open requests finish."""

import asyncio
import signal
import socket
import time
from collections import Counter
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.external_store import ExternalStore
from tests.support.receiver import Receiver, receiving
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, has_store, serving, serving_in_two


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_message_is_sent_after_a_restart(
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


async def test_message_is_sent_after_kill_9(tmp_path: Path, receiver: Receiver) -> None:
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url, delay=1)
        assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    async with serving(tmp_path) as server:
        await server.reach("m", "delivered")
    assert len(receiver.requests) == 1


async def test_messages_claimed_by_a_killed_process_are_sent_at_once_after_its_restart(
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


async def test_requests_not_yet_read_when_their_sender_was_killed_arrive_once(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as deaf:
        port = int(deaf.getsockname()[1])
        async with serving(tmp_path) as server:
            for n in range(20):
                await server.create(id=str(n), webhookUrl=f"http://127.0.0.1:{port}/")
            deaf.settimeout(5)
            with ExitStack() as connections:
                for _ in range(20):
                    accepted, _ = await asyncio.to_thread(deaf.accept)
                    connections.enter_context(accepted)
                assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
    async with receiving(port) as receiver, serving(tmp_path) as server:
        for n in range(20):
            await server.reach(str(n), "delivered")
    assert Counter(receiver.ids()) == Counter(map(str, range(20)))


async def test_messages_due_while_every_replica_is_dead_are_sent_once_after_the_next_start(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    async with serving_in_two(tmp_path, **external_store.environ) as both:
        due = time.time() + 3
        at = datetime.fromtimestamp(due, UTC).isoformat()
        for server, first in zip(both, (0, 25), strict=True):
            ids = map(str, range(first, first + 25))
            messages = [{"id": it, "webhookUrl": receiver.url, "scheduleTo": at} for it in ids]
            status, _, _ = await server.ask("POST", "/messages/batch", {"messages": messages})
            assert status == 200
        for server in both:
            assert await server.stop(signal.SIGKILL) == -signal.SIGKILL
        assert not receiver.requests
    await wait_until("their due time", lambda: time.time() > due)
    async with serving_in_two(tmp_path, **external_store.environ) as both:
        for n in range(50):
            await both[n % 2].reach(str(n), "delivered")
    assert Counter(receiver.ids()) == Counter(map(str, range(50)))


async def test_stop_waits_for_five_hundred_open_requests(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    # A host that has not responded yet gets a third of the slots.
    many = {"MAX_IN_FLIGHT": "1500", "DESTINATION_CONCURRENCY": "1000"} | external_store.environ
    (tmp_path / "other").mkdir()
    receiver.hold.clear()
    async with serving(tmp_path, SERVE, None, **many) as server:
        messages = [{"id": str(n), "webhookUrl": receiver.url} for n in range(510)]
        assert (await server.ask("POST", "/messages/batch", {"messages": messages}))[0] == 200
        await wait_until("500 requests", lambda: len(receiver.requests) == 500)
        async with serving(tmp_path / "other", SERVE, None, **many) as other:
            await wait_until("ten from the other", lambda: len(receiver.requests) == 510)
            server.send_signal(signal.SIGTERM)
            await server.event("shutdown_requested")
            await other.create(id="new", webhookUrl=receiver.url)
            await wait_until("the new one from the other", lambda: "new" in receiver.ids())
            assert server.process.poll() is None
            receiver.hold.set()
            assert await server.ended() == 0
            assert len(server.events("message_delivered")) == 500
            for message_id in ("0", "509", "new"):
                await other.reach(message_id, "delivered")
    assert Counter(receiver.ids()) == Counter([*map(str, range(510)), "new"])


async def test_stop_waits_until_an_open_request_is_settled(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.hold.clear()
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url)
        await wait_until("the request", lambda: len(receiver.requests) == 1)
        server.send_signal(signal.SIGTERM)
        await server.event("shutdown_requested")
        assert server.process.poll() is None
        receiver.hold.set()
        assert await server.ended() == 0
        assert server.events("message_delivered")
    async with serving(tmp_path) as server:
        assert await server.state("m") == "delivered"
    assert len(receiver.requests) == 1


async def test_second_signal_ends_the_service_at_once(tmp_path: Path, receiver: Receiver) -> None:
    receiver.hold.clear()
    async with serving(tmp_path) as server:
        await server.create(id="m", webhookUrl=receiver.url)
        await wait_until("the request", lambda: len(receiver.requests) == 1)
        server.send_signal(signal.SIGTERM)
        await server.event("shutdown_requested")
        asked = time.monotonic()
        assert await server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - asked < 5
    async with serving(tmp_path) as server:
        _, message, _ = await server.ask("GET", "/messages/m")
        assert message["state"] == "retrying"
        assert [it["error"] for it in message["attempts"]] == ["shutdown"]
