"""At most so many connections, the oldest closed first; without a socket no crash is counted."""

import asyncio
import errno
import os
import socket
import stat
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.delivery.http.egress import out_of_sockets
from scheduler_api.delivery.http.sender import NothingSent, Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.claims import Claimed
from scheduler_api.store.queue import Queue
from scheduler_api.store.store import Store
from tests.delivery.conftest import Claims, Start, send
from tests.support.factories import LOOPBACK, accepted
from tests.support.receiver import Receiver
from tests.support.silent_hosts import answer_names
from tests.support.waiting import wait_until

CONNECTIONS = 8
SHORT_LEASE = 1.0  # seconds


def open_sockets() -> int:
    """The open sockets of this process."""
    count = 0
    for name in os.listdir("/dev/fd"):
        with suppress(OSError):  # the descriptor of the listing is closed
            count += stat.S_ISSOCK(os.fstat(int(name)).st_mode)
    return count


@pytest.fixture
def urls(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> list[str]:
    """URLs of many hosts."""
    answer_names(monkeypatch, lambda _: ["127.0.0.1"])
    port = receiver.url.split(":")[2]
    return [f"http://host{number}.example:{port}" for number in range(5 * CONNECTIONS)]


async def send_to(sender: Sender, claim: Claims, url: str) -> None:
    sent = await send(sender, await claim(url, url.split(":")[1]))
    assert sent.attempt.status == 200


async def test_connector_closes_the_oldest_idle_connections_above_the_limit(
    claim: Claims, urls: list[str]
) -> None:
    async with open_transport(LOOPBACK, max_connections=CONNECTIONS) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        before = open_sockets()
        for url in urls:
            await send_to(sender, claim, url)
            # Both ends of each connection are in this process.
            assert open_sockets() - before <= 2 * (CONNECTIONS + 1)
        pool = transport._connector._conns
        kept = [key.host for key in pool]
        assert kept == [url.split("/")[2].split(":")[0] for url in urls[-len(kept) :]]
        assert len(kept) > CONNECTIONS // 2


async def test_connector_closes_the_oldest_of_several_idle_connections_to_a_host(
    claim: Claims, urls: list[str], receiver: Receiver
) -> None:
    async with open_transport(LOOPBACK, max_connections=CONNECTIONS) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        receiver.hold.clear()
        claims = [await claim(urls[0], f"m{number}") for number in range(CONNECTIONS - 1)]
        sending = [asyncio.create_task(send(sender, one)) for one in claims]
        await wait_until("all requests", lambda: len(receiver.requests) == CONNECTIONS - 1)
        receiver.hold.set()
        await asyncio.gather(*sending)
        for url in urls[1:4]:
            await send_to(sender, claim, url)
        sizes = [len(kept) for kept in transport._connector._conns.values()]
        assert sum(sizes) <= CONNECTIONS
        assert sizes[1:] == [1, 1, 1]
        assert sizes[0] == CONNECTIONS - 3


async def test_connector_closes_idle_connections_when_no_socket_is_free(
    claim: Claims, urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_transport(LOOPBACK) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        for url in urls[:3]:
            await send_to(sender, claim, url)
        assert len(transport._connector._conns) == 3
        claimed = await claim(urls[4], "m")
        shortage(monkeypatch, times=1)
        with pytest.raises(NothingSent):
            await send(sender, claimed)
        assert not transport._connector._conns


def shortage(monkeypatch: pytest.MonkeyPatch, times: int, reason: int = errno.EMFILE) -> None:
    """Let the next sockets for receivers fail."""
    left = times

    class Scarce(socket.socket):
        def __init__(self, *args: Any, **more: Any) -> None:
            nonlocal left
            left -= 1
            if left >= 0:
                raise OSError(reason, os.strerror(reason))
            super().__init__(*args, **more)

    monkeypatch.setattr("scheduler_api.delivery.http.egress.socket.socket", Scarce)


@pytest.mark.parametrize(
    ("reason", "expected"), [(errno.ENFILE, True), (errno.EACCES, False), (None, False)]
)
def test_out_of_sockets_is_true_only_for_a_shortage(
    monkeypatch: pytest.MonkeyPatch, reason: int | None, expected: bool
) -> None:
    if reason:
        shortage(monkeypatch, times=1, reason=reason)
    assert out_of_sockets() is expected


async def test_release_without_a_socket_counts_no_crash_though_the_store_is_away(
    redis: Redis,
    prefix: str,
    start: Start,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scheduler_api.delivery.slots.SHORTAGE_PAUSE", 0.05)
    store = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    failures, release = 3, Queue.release

    async def away(self: Queue, claims: list[Claimed]) -> None:
        nonlocal failures
        failures -= 1
        if claims and failures >= 0:
            raise StoreUnavailable
        await release(self, claims)

    monkeypatch.setattr(Queue, "release", away)
    shortage(monkeypatch, times=1)
    await store.messages.create("a", accepted(webhookUrl=receiver.url))
    await start(store, lease=SHORT_LEASE)

    async def delivered() -> bool:
        return (await store.messages.get("a")).state == "delivered"

    await wait_until("the delivery", delivered)
    message = await store.messages.get("a")
    assert (message.crashes, len(message.attempts), failures < 0) == (0, 1, True)


async def test_send_fails_with_connect_error_for_an_unknown_address_family(
    claim: Claims, receiver: Receiver, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed = await claim(receiver.url)
    shortage(monkeypatch, times=1, reason=errno.EAFNOSUPPORT)
    assert (await send(sender, claimed)).attempt.error == "connect_error"


async def test_drain_does_not_wait_for_a_store_that_is_away(
    start: Start, live_store: Store, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def away(*_: object) -> None:
        asked.set()
        raise StoreUnavailable

    monkeypatch.setattr(Queue, "release", away)
    shortage(monkeypatch, times=1)
    dispatcher = await start()
    await live_store.messages.create("a", accepted(webhookUrl=receiver.url))
    await asked.wait()
    async with asyncio.timeout(5):
        await dispatcher.drain(timedelta(seconds=4))


async def test_lost_lease_of_an_open_request_counts_no_crash(
    redis: Redis,
    prefix: str,
    start: Start,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(redis, prefix=prefix, lease=timedelta(seconds=SHORT_LEASE))
    receiver.hold.clear()
    renew = Queue.renew

    async def away(*_: object) -> list[bool]:
        raise StoreUnavailable

    monkeypatch.setattr(Queue, "renew", away)
    await start(store, lease=SHORT_LEASE)
    await store.messages.create("a", accepted(webhookUrl=receiver.url))
    await wait_until("an aborted request", lambda: receiver.gone > 0)
    monkeypatch.setattr(Queue, "renew", renew)
    receiver.hold.set()

    async def delivered() -> bool:
        return (await store.messages.get("a")).state == "delivered"

    await wait_until("the delivery", delivered)
    assert (await store.messages.get("a")).crashes == 0


async def test_connector_does_not_count_connections_that_receivers_closed(
    claim: Claims, urls: list[str], receiver: Receiver
) -> None:
    async with open_transport(LOOPBACK, max_connections=CONNECTIONS) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        await send_to(sender, claim, urls[0])
        receiver.answer_headers = {"Connection": "close"}
        for url in urls[1 : 2 * CONNECTIONS]:
            await send_to(sender, claim, url)
        assert len(transport._connector._conns) == 1
