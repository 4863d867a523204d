"""The store is down, or a process is suspended, for longer than a lease."""

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path

from tests.support.external_store import ExternalStore
from tests.support.fault_proxy import proxying
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, Server, serving

LEASE = 3  # seconds
MANY = 500


def arrivals(receiver: Receiver) -> Counter[str]:
    """Number of requests of each message id."""
    return Counter(it.headers["Scheduler-Message-Id"] for it in receiver.requests)


async def nothing_pending(server: Server) -> None:
    """Wait until no message is pending."""

    async def empty() -> bool:
        _, page, _ = await server.ask("GET", "/messages?limit=1")
        return page.get("total") == 0

    await wait_until("no pending message", empty, 30)


async def test_attempts_that_end_during_an_outage_are_settled_and_not_repeated(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    # A host that has not responded yet gets a third of the slots.
    many = {"MAX_IN_FLIGHT": str(3 * MANY), "DESTINATION_CONCURRENCY": str(MANY)}
    environ = external_store.environ | many | {"LEASE": f"{LEASE}s"}
    (tmp_path / "idle").mkdir()
    receiver.hold.clear()
    async with serving(tmp_path, SERVE, None, **environ) as busy:
        for start in range(0, MANY, 50):
            ids = range(start, start + 50)
            await asyncio.gather(*(busy.create(id=str(n), webhookUrl=receiver.url) for n in ids))
        await wait_until("all requests", lambda: len(receiver.requests) == MANY, 30)
        async with serving(tmp_path / "idle", SERVE, None, **environ) as idle:
            await external_store.stop(signal.SIGKILL)
            receiver.hold.set()
            gone = time.monotonic()
            await wait_until("two leases", lambda: time.monotonic() > gone + 2 * LEASE)
            await external_store.start()
            await idle.ready()
            await nothing_pending(idle)
            assert not idle.events("leases_reaped") + busy.events("leases_reaped")
            await wait_until("its event", lambda: len(busy.events("message_delivered")) == MANY)
    assert arrivals(receiver) == Counter(str(n) for n in range(MANY))


async def test_process_suspended_during_an_outage_does_not_reap_when_it_continues(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    environ = external_store.environ | {"LEASE": f"{LEASE}s", "DESTINATION_CONCURRENCY": "1000"}
    (tmp_path / "other").mkdir()
    receiver.hold.clear()
    async with (
        proxying(("127.0.0.1", external_store.port)) as proxy,
        serving(tmp_path, SERVE, None, **environ | {"REDIS_PORT": str(proxy.port)}) as busy,
    ):
        for n in range(20):
            await busy.create(id=str(n), webhookUrl=receiver.url)
        await wait_until("open requests", lambda: len(receiver.requests) == 20)
        async with serving(tmp_path / "other", SERVE, None, **environ) as other:
            other.send_signal(signal.SIGSTOP)
            proxy.black_hole()
            receiver.hold.set()
            gone = time.monotonic()
            await wait_until("two leases", lambda: time.monotonic() > gone + 2 * LEASE)
            other.send_signal(signal.SIGCONT)
            await other.create(id="new", webhookUrl=receiver.url)
            await other.reach(
                "new", "delivered"
            )  # so it has checked, and seen that the leases ended
            await proxy.heal()
            await nothing_pending(other)
            assert not other.events("leases_reaped")
            assert await other.state("0") == "delivered"
    assert set(arrivals(receiver).values()) == {1}


async def test_process_suspended_for_longer_than_its_leases_settles_nothing(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    environ = external_store.environ | {"LEASE": f"{LEASE}s"}
    (tmp_path / "other").mkdir()
    receiver.hold.clear()
    async with serving(tmp_path, SERVE, None, **environ) as zombie:
        for n in range(20):
            await zombie.create(id=str(n), webhookUrl=receiver.url)
        await wait_until("open requests", lambda: len(receiver.requests) == 20)
        zombie.send_signal(signal.SIGSTOP)
        receiver.hold.set()
        async with serving(tmp_path / "other", SERVE, None, **environ) as other:
            await nothing_pending(other)
            zombie.send_signal(signal.SIGCONT)
            ignored = ("lease_lost", "settle_refused")

            def given_up() -> bool:
                return sum(len(zombie.events(it)) for it in ignored) == 20

            await wait_until("all of its claims given up", given_up)
            assert not zombie.events("message_delivered")
            _, message, _ = await other.ask("GET", "/messages/0")
            assert [it["number"] for it in message["attempts"]] == [1]
    assert set(arrivals(receiver).values()) == {2}
