"""Faults of the store: it dies, loads, is full, is demoted, is busy, refuses or is emptied."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis import exceptions
from redis.asyncio import Redis

from tests.faults.conftest import Logs, Service, events, replica
from tests.support.receiver import Receiver
from tests.support.valkey import Valkey, client, valkey_server
from tests.support.waiting import wait_until

# Codes after connections ended; the second if a call was sent before that was noticed.
GONE = ("store_unavailable", "outcome_unknown")
HOLD_UP = "local i = 0 while i >= 0 do i = i + 1 end"  # a script that never ends


async def order(admin: Redis, *words: str) -> None:
    """Run a command as the store's operator."""
    await admin.execute_command(*words)  # type: ignore[no-untyped-call]


async def refused(service: Service, receiver: Receiver, *codes: str) -> None:
    """Check that creates get a 503 with one of these codes, and store nothing."""
    assert await service.refusal(id="refused", webhookUrl=receiver.url) in codes


async def recovers(service: Service, receiver: Receiver) -> None:
    """Check that the service works again, and sends nothing that was refused."""
    await service.healed()
    assert await service.create(id="after", webhookUrl=receiver.url) == 201
    await service.reach("after", "delivered")
    assert "refused" not in receiver.ids()


async def test_killed_store_keeps_every_message_that_was_answered_201(
    service: Service, upstream: Valkey, receiver: Receiver
) -> None:
    """F13. Creates continue during kill and restart; each message with a 201 arrives once."""
    answers: dict[str, int] = {}

    async def create(number: int) -> None:
        answers[f"m{number}"] = await service.create(
            id=f"m{number}", webhookUrl=receiver.url, delay=0.5
        )

    creating = [asyncio.create_task(create(number)) for number in range(100)]
    await wait_until("the first answers", lambda: len(answers) >= 10)
    await upstream.stop(signal.SIGKILL)
    await asyncio.gather(*creating)
    await refused(service, receiver, *GONE)
    assert await service.health() == (503, "disconnected")
    async with service.http.get("/health/live") as alive:
        assert alive.status == 200
    await upstream.start()
    await service.healed()
    for message_id in [one for one, status in answers.items() if status == 201]:
        await service.reach(message_id, "delivered")
    assert len(receiver.ids()) == len(set(receiver.ids()))
    assert set(receiver.ids()) <= set(answers)


async def test_store_that_loads_its_data_is_waited_for(
    tmp_path: Path, receiver: Receiver, logs: Logs
) -> None:
    """F14. Loading takes 2 ms a key, so that calls meet a loading server."""
    slowly = ("appendonly no", "key-load-delay 2000", "loading-process-events-interval-bytes 1024")
    async with (
        valkey_server(tmp_path, *slowly) as server,
        replica(server.address, tmp_path) as service,
    ):
        assert await service.create(id="before", webhookUrl=receiver.url, delay=1) == 201
        async with client(server.address) as admin:
            await admin.mset({f"other:{number}": "x" * 50 for number in range(1000)})
            await admin.save()
            await server.stop(signal.SIGKILL)
            await server.start()
            with pytest.raises(exceptions.BusyLoadingError):
                await admin.ping()
        await refused(service, receiver, *GONE)
        assert await service.health() == (503, "disconnected")
        await service.reach("before", "delivered")
        await recovers(service, receiver)
    assert len(events(logs, "store_lost")) == 1, "one line for the change, not one a try"


async def test_full_store_refuses_creates_and_still_drains(
    service: Service, admin: Redis, receiver: Receiver
) -> None:
    """F15. With maxmemory and no eviction, stored messages are sent, settled and cancelled."""
    for message_id in ("sent", "cancelled"):
        delay = 1 if message_id == "sent" else 3600
        assert await service.create(id=message_id, webhookUrl=receiver.url, delay=delay) == 201
    await admin.config_set("maxmemory", "1mb")
    assert await service.refusal(id="refused", webhookUrl=receiver.url) == "store_full"
    assert await service.health() == (200, "connected"), "it reads, sends and settles"
    await service.reach("sent", "delivered")
    async with service.http.delete("/messages/cancelled") as response:
        assert response.status == 200
    await admin.config_set("maxmemory", "0")
    await recovers(service, receiver)


async def test_demoted_store_is_unavailable_until_it_is_primary_again(
    service: Service, admin: Redis, receiver: Receiver, logs: Logs
) -> None:
    """F17. The scripts fail with READONLY; its new primary does not exist."""
    await order(admin, "REPLICAOF", "127.0.0.1", "1")
    await refused(service, receiver, "store_unavailable")
    await wait_until("the loss", lambda: len(events(logs, "store_lost")) > 0)
    await order(admin, "REPLICAOF", "NO", "ONE")
    await recovers(service, receiver)


async def test_store_without_its_replicas_is_unavailable(
    service: Service, admin: Redis, receiver: Receiver
) -> None:
    """F19. NOREPLICAS is a plain error to the client."""
    await admin.config_set("min-replicas-to-write", 1)
    await refused(service, receiver, "store_unavailable")
    await admin.config_set("min-replicas-to-write", 0)
    await recovers(service, receiver)


async def test_scripts_that_the_store_forgot_are_sent_again_without_an_error(
    service: Service, admin: Redis, receiver: Receiver
) -> None:
    """F24. SCRIPT FLUSH before each step, as after a restart."""
    for number in range(5):
        await admin.script_flush()
        assert await service.create(id=f"{number}", webhookUrl=receiver.url) == 201
        await admin.script_flush()
        await service.reach(f"{number}", "delivered")
    assert receiver.ids() == [f"{number}" for number in range(5)]


@asynccontextmanager
async def holding_up(admin: Redis, address: str) -> AsyncIterator[None]:
    """Run a script of another client that never ends, until SCRIPT KILL."""
    await admin.config_set("busy-reply-threshold", 10)

    async def run() -> None:
        async with client(f"{address}?socket_timeout=60") as other:
            with pytest.raises(exceptions.RedisError):
                await other.eval(HOLD_UP, 0)

    async def is_busy() -> bool:
        try:
            return not await admin.ping()
        except exceptions.RedisError:
            return True

    running = asyncio.create_task(run())
    await wait_until("a busy store", is_busy)
    yield
    await admin.script_kill()
    await running


async def test_store_that_runs_a_script_of_another_client_is_unavailable_and_not_killed(
    service: Service, admin: Redis, upstream: Valkey, receiver: Receiver
) -> None:
    """F25. BUSY: we wait for the script, and do not kill it."""
    async with holding_up(admin, upstream.address):
        await refused(service, receiver, "store_unavailable")
        assert await service.health() == (503, "disconnected")
        with pytest.raises(exceptions.ResponseError, match="BUSY"):
            await admin.get("key")
    await recovers(service, receiver)


async def test_store_that_takes_no_more_clients_is_unavailable(
    service: Service, admin: Redis, receiver: Receiver
) -> None:
    """F26. Other clients took the last connections, and ours was closed."""
    await admin.config_set("maxclients", 1)
    await admin.client_kill_filter(_type="pubsub")
    await admin.client_kill_filter(_type="normal", skipme=True)
    await refused(service, receiver, *GONE)
    assert await service.health() == (503, "disconnected")
    await admin.config_set("maxclients", 1000)
    await recovers(service, receiver)


async def test_replica_holds_few_connections_however_many_calls_it_serves(
    service: Service, admin: Redis, receiver: Receiver
) -> None:
    """F26. The pool is bounded, so that replicas leave connections to each other."""
    calls = [service.create(id=f"{number}", webhookUrl=receiver.url) for number in range(200)]
    assert await asyncio.gather(*calls) == [201] * 200
    assert len(await admin.client_list()) <= 16 + 1


async def test_store_without_rights_is_unavailable_until_they_are_given_back(
    upstream: Valkey, admin: Redis, receiver: Receiver, tmp_path: Path, logs: Logs
) -> None:
    """F28. The ACL rights change at run time: no crash, no crash loop."""
    await order(admin, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
    login = upstream.address.replace("unix://", "unix://app:secret@")
    async with replica(login, tmp_path) as service:
        await order(admin, "ACL", "SETUSER", "app", "-@all")
        await refused(service, receiver, "store_unavailable")
        assert await service.health() == (503, "disconnected")
        await wait_until("the loss", lambda: len(events(logs, "store_lost")) > 0)
        await order(admin, "ACL", "SETUSER", "app", ">changed", "<secret", "+@all")
        await admin.client_kill_filter(_type="normal", skipme=True)
        await refused(service, receiver, *GONE)
        await order(admin, "ACL", "SETUSER", "app", ">secret")
        await recovers(service, receiver)


async def test_emptied_store_is_reported_and_used_further(
    service: Service, admin: Redis, receiver: Receiver, logs: Logs
) -> None:
    """F32. FLUSHALL with one message in flight and one waiting: neither arrives a second time."""
    receiver.hold.clear()
    for message_id, delay in (("on the wire", 0), ("waits", 3600)):
        assert await service.create(id=message_id, webhookUrl=receiver.url, delay=delay) == 201
    await wait_until("the request", lambda: len(receiver.requests) == 1)
    await admin.flushall()
    receiver.hold.set()
    await wait_until("the refusal", lambda: len(events(logs, "settle_refused")) == 1)
    async with service.http.get("/messages") as response:
        assert (response.status, (await response.json())["count"]) == (200, 0)
    await recovers(service, receiver)
    assert len(events(logs, "store_reset")) == 1
    assert await admin.hget("scheduler:{0}:meta", "schema"), "marked again"
    assert len(receiver.requests) == 2
