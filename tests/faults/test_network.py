"""Faults between a replica and its store: connections die, hang, are slow, or lose a reply."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis

from scheduler_api.domain.errors import Conflict, NotFound, StoreUnavailable
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY, NOW
from tests.faults.conftest import Service, replica
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.fault_proxy import FaultProxy, proxying, script_names
from tests.support.message_states import everything, outcome
from tests.support.receiver import Receiver
from tests.support.store_clock import Clock, clock_lib
from tests.support.valkey import Valkey, client
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from scheduler_api.store.claims import Claimed

EVEN_LONGER = 10_000  # bytes, more than any reply of these tests
READS = ("get", "list")
UNLIKE = (
    b":claims",
    b":workers",
    b":progress",
)  # keys whose content differs from process to process


async def test_reset_connection_is_an_unavailable_store_and_the_next_call_works(
    proxy: FaultProxy,
) -> None:
    """F27. On uvloop a write to it raises RuntimeError, which was once answered as a 500."""
    async with client(proxy.address) as redis:
        store = Store(redis)
        witness, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        assert await store.messages.count() == 0
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            await witness.read()
        with pytest.raises(StoreUnavailable):
            await store.messages.count()
        assert await store.messages.count() == 0
        writer.close()


async def test_connections_that_the_server_ends_are_replaced_without_an_error(
    service: Service, proxy: FaultProxy, admin: Redis, receiver: Receiver
) -> None:
    """F27. CLIENT KILL and the idle timeout both send a FIN."""

    async def ended(old: set[Any]) -> bool:
        # Repeated, as the server does not know a connection that is just being opened.
        await admin.client_kill_filter(_type="pubsub")
        await admin.client_kill_filter(_type="normal", skipme=True)
        return old.isdisjoint(proxy.connections)

    async def passed_on() -> bool:
        # Connections opened meanwhile were killed too, and their FIN may not have arrived.
        return len(await admin.client_list()) - 1 == len(proxy.connections)

    for number in range(3):
        await wait_until("their end", partial(ended, set(proxy.connections)))
        await wait_until("the last of them", passed_on)
        await service.http.get("/health/live")  # one turn of the loop, in which it notices the FIN
        assert await service.create(id=f"{number}", webhookUrl=receiver.url) == 201
        await service.reach(f"{number}", "delivered")
    assert len(receiver.requests) == 3


async def test_slow_store_delays_and_loses_nothing(
    service: Service, proxy: FaultProxy, receiver: Receiver
) -> None:
    """F20, 50 ms: no call fails, each message is sent once."""
    proxy.latency(0.05, jitter=0.02)
    ids = [f"m{number}" for number in range(20)]
    made = await asyncio.gather(*(service.create(id=it, webhookUrl=receiver.url) for it in ids))
    assert made == [201] * len(ids)
    for message_id in ids:
        await service.reach(message_id, "delivered")
    assert sorted(receiver.ids()) == sorted(ids)


async def test_store_slower_than_the_timeout_is_503_and_a_repeat_is_safe(
    service: Service, proxy: FaultProxy, receiver: Receiver
) -> None:
    """F20, longer than the timeout: the outcome is unknown, and a second call shows it."""
    proxy.latency(1.0)
    # The first code if a connection had to be opened, so that nothing was sent.
    codes = ("store_unavailable", "outcome_unknown")
    assert await service.refusal(id="a", webhookUrl=receiver.url) in codes
    assert await service.health() == (503, "disconnected")
    await proxy.heal()
    await service.healed()
    assert await service.create(id="a", webhookUrl=receiver.url) in (201, 409)
    await service.reach("a", "delivered")
    assert receiver.ids() == ["a"]


async def test_stopped_store_is_503_and_due_messages_are_sent_once_afterwards(
    service: Service, upstream: Valkey, receiver: Receiver
) -> None:
    """F21. Claims that timed out run after the store resumes; all have the same nonce."""
    ids = [f"m{number}" for number in range(20)]
    for message_id in ids:
        assert await service.create(id=message_id, webhookUrl=receiver.url, delay=1) == 201
    upstream.send_signal(signal.SIGSTOP)
    assert await service.refusal() == "store_unavailable"
    assert await service.refusal("/health/ready") == "store_unavailable"
    codes = ("store_unavailable", "outcome_unknown")
    assert await service.refusal(id="late", webhookUrl=receiver.url) in codes
    assert await service.health() == (503, "disconnected")
    assert receiver.ids() == []
    upstream.send_signal(signal.SIGCONT)
    await service.healed()
    for message_id in ids:
        await service.reach(message_id, "delivered")
    assert sorted(set(receiver.ids()) - {"late"}) == sorted(ids)
    assert len(receiver.requests) == len(set(receiver.ids()))


async def test_replica_behind_a_partition_gives_up_and_another_takes_over(
    upstream: Valkey, proxy: FaultProxy, receiver: Receiver, tmp_path: Path
) -> None:
    """F22. One message in flight at the cut: at most one repeated request, none after the lease."""
    receiver.hold.clear()
    async with (
        replica(proxy.address, tmp_path / "cut", LEASE="1s") as cut,
        replica(upstream.address, tmp_path / "other", LEASE="1s") as other,
    ):
        other.dispatcher.stop()  # so that the first replica claims
        assert await other.create(id="a", webhookUrl=receiver.url, timeout="20s") == 201
        await wait_until("the request", lambda: receiver.ids() == ["a"])
        proxy.black_hole()
        async with replica(upstream.address, tmp_path / "third", LEASE="1s") as third:
            assert await cut.health() == (503, "disconnected")
            assert (await third.health())[0] == 200
            await wait_until("the second request", lambda: len(receiver.requests) == 2)
            assert receiver.gone == 1, "the first request was given up before"
            receiver.hold.set()
            await third.reach("a", "delivered")
            await proxy.heal()
            await cut.healed()
            assert await cut.state("a") == "delivered"
    assert receiver.ids() == ["a", "a"]


async def test_cut_wire_between_replica_and_store_is_503_on_that_replica_only(
    upstream: Valkey, proxy: FaultProxy, receiver: Receiver, tmp_path: Path
) -> None:
    """F22, with connections refused."""
    async with (
        replica(proxy.address, tmp_path / "cut") as cut,
        replica(upstream.address, tmp_path / "other") as other,
    ):
        await proxy.refuse()
        assert await cut.refusal(id="a", webhookUrl=receiver.url) == "store_unavailable"
        assert await other.create(id="a", webhookUrl=receiver.url) == 201
        await other.reach("a", "delivered")
        await proxy.heal()
        await cut.healed()
    assert receiver.ids() == ["a"]


@pytest.fixture
async def cutting(
    socket: Path, redis: Redis, prefix: str, clock: Clock
) -> AsyncIterator[tuple[FaultProxy, Store]]:
    """The store of the test, through a proxy that knows the scripts' names."""
    names = script_names(clock_lib(clock.key))
    async with (
        proxying(socket, names=names) as proxy,
        client(proxy.address) as far,
    ):
        yield proxy, Store(far, prefix=prefix, concurrency=CONCURRENCY, libs=clock_lib(clock.key))
    await invariants.check(redis, Store(redis, prefix=prefix).keys[0], CONCURRENCY)


class Bench:
    """A message in each state that a script needs, and the call that runs the script."""

    def __init__(self, near: Store, far: Store, clock: Clock) -> None:
        self.near, self.far, self.clock = near, far, clock
        self.claimed: Sequence[Claimed] = ()

    async def lay(self) -> None:
        """Prepare a finished, a claimed and a waiting message."""
        await self.clock.set(NOW)
        for message_id in ("done", "claimed", "waits"):
            await self.near.messages.create(message_id, accepted())
        (claimed,) = (await self.far.queues[0].claim(1)).messages
        await self.far.queues[0].settle(outcome(claimed))
        self.claimed = (await self.far.queues[0].claim(1)).messages

    async def claim(self) -> None:
        await self.far.queues[0].claim(1)

    async def create(self) -> None:
        await self.far.messages.create("new", accepted())

    async def settle(self) -> None:
        await self.far.queues[0].settle(outcome(self.claimed[0], "retry"))

    async def release(self) -> None:
        await self.far.queues[0].release(self.claimed)

    async def renew(self) -> None:
        await self.far.queues[0].renew(self.claimed)

    async def reap(self) -> None:
        await self.clock.set(NOW + 60_000)
        await self.far.queues[0].reap()

    async def purge(self) -> None:
        await self.clock.set(NOW + 2 * 86_400_000)
        await self.far.queues[0].purge()

    async def cancel(self) -> None:
        await self.far.messages.cancel("waits")

    async def get(self) -> None:
        await self.far.messages.get("done")

    async def list(self) -> None:
        await self.far.messages.list(1, None)


async def clear(redis: Redis, store: Store) -> None:
    for key in await everything(redis, store.keys[0]):
        await redis.delete(key)


async def result(redis: Redis, store: Store) -> dict[bytes, Any]:
    """The stored data, without what differs from process to process."""
    found = await everything(redis, store.keys[0])
    return {key: value for key, value in found.items() if not key.endswith(UNLIKE)}


async def run_again(call: Callable[[], Awaitable[None]]) -> None:
    """Repeat the call, as a caller without an answer does; the first run may be why it refuses."""
    with suppress(NotFound, Conflict):
        await call()


@pytest.mark.parametrize(
    "script",
    ["claim", "create", "settle", "release", "renew", "reap", "purge", "cancel", "get", "list"],
)
async def test_reply_cut_at_any_byte_leaves_the_state_as_if_it_had_come(
    redis: Redis, store: Store, clock: Clock, cutting: tuple[FaultProxy, Store], script: str
) -> None:
    """F23, and a lost reply: the call fails, and repeating it gives the same state."""
    proxy, far = cutting
    bench = Bench(store, far, clock)
    await bench.lay()
    call = getattr(bench, script)
    await call()
    wanted = await result(redis, store)
    for kept in range(EVEN_LONGER):
        if script not in READS:
            await clear(redis, store)
            await bench.lay()
        proxy.cut_reply(script, kept=kept)
        try:
            await call()
        except StoreUnavailable:
            await run_again(call)
        else:
            assert kept, "a reply has at least a byte"
            break
        assert await result(redis, store) == wanted, f"cut after {kept} bytes"
