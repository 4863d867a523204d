"""Lateness of messages to a fast destination beside many slow ones of each kind.

Prints the 99th percentile for each kind. `make campaigns` runs it.
"""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import timedelta

import pytest
import structlog
from aiohttp import web
from redis.asyncio import Redis

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.store.store import Store
from tests.support.factories import LOOPBACK, accepted
from tests.support.raw_server import endless_server
from tests.support.receiver import Receiver, receiving
from tests.support.silent_hosts import answer_names, silent_port
from tests.support.waiting import wait_until

pytestmark = pytest.mark.campaign

SLOTS = 256
LEASE = timedelta(seconds=15)
FAST = 100  # messages to the fast destination
EVERY = 15  # ms between two of them
FIRST = 600  # ms, after which the slow destinations have all the slots that they get
SLOW = 400  # messages to all slow destinations together
ALLOWED = 500  # ms late, on a busy machine; a request that hangs takes 30 s
LARGE = "x" * (4 * 1024 * 1024)  # a body larger than the buffers of two sockets
LARGE_ONES = 24  # messages
NAMES_HANG, NAMES_TAKE = "silent", "late"  # prefixes of host names
NAME_SECONDS = 0.8


@contextmanager
def full_backlog() -> Iterator[str]:
    """A port whose queue of connections is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        yield f"http://slow%d.example:{full.getsockname()[1]}/"


@asynccontextmanager
async def steady(seconds: float) -> AsyncIterator[str]:
    """A server that answers each request after this many seconds."""

    async with receiving() as one:

        async def late(_: web.Request) -> web.StreamResponse:
            await asyncio.sleep(seconds)
            return web.Response(text="late")

        one.answer = late
        yield at(one.url)


def at(url: str, name: str = "slow%d.example", scheme: str = "http") -> str:
    """URLs of many hosts at one port, with a place for a number."""
    return f"{scheme}://{name}:{url.split(':')[2].partition('/')[0]}/"


@asynccontextmanager
async def slow(kind: str) -> AsyncIterator[str]:
    """Destinations of that kind → their URLs, with a place for a number."""
    match kind:
        case "hangs" | "tls" | "large body":
            with silent_port() as port:
                scheme = "https" if kind == "tls" else "http"
                yield f"{scheme}://slow%d.example:{port}/"
        case "drips":
            async with endless_server(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.1) as (url, _):
                yield at(url)
        case "never accepts":
            with full_backlog() as url:
                yield url
        case "silent names":
            yield f"http://{NAMES_HANG}%d.example/"
        case "slow names":
            async with receiving() as one:
                yield at(one.url, f"{NAMES_TAKE}%d.example")
        case _:
            async with steady(1.0) as url:
                yield url


CASES = (
    *(("hangs", hosts) for hosts in (1, 4, 16, 100, 300)),
    *(
        (kind, 16)
        for kind in ("drips", "never accepts", "silent names", "slow names", "tls", "large body")
    ),
    ("answers after 1 s", 16),
)


@pytest.fixture
def quiet() -> None:
    """Drop all log events."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names of this machine; some resolve slowly, some never."""
    over = threading.Event()

    def answer(name: str) -> list[str]:
        if name.startswith(NAMES_HANG):
            over.wait()
        if name.startswith(NAMES_TAKE):
            over.wait(NAME_SECONDS)
        return ["127.0.0.1"]

    answer_names(monkeypatch, answer)
    yield
    over.set()


@asynccontextmanager
async def dispatching(store: Store) -> AsyncIterator[None]:
    """A dispatcher with the service's defaults."""
    async with open_transport(LOOPBACK) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=30), secrets=())
        dispatcher = Dispatcher(
            store.queues,
            store.notifier,
            sender,
            store.growth,
            store.check,
            slots=SLOTS,
            lease=LEASE,
        )
        dispatcher.start()
        try:
            yield
        finally:
            await dispatcher.drain(timedelta(seconds=0.1))


async def create(store: Store, url: str, hosts: int, kind: str) -> None:
    """Messages to slow destinations."""
    count, fields = (LARGE_ONES, {"payload": LARGE}) if kind == "large body" else (SLOW, {})
    new = [accepted(webhookUrl=url % (number % hosts), **fields) for number in range(count)]
    batch = [(f"slow{number}", each) for number, each in enumerate(new)]
    for start in range(0, count, 20):
        await store.messages.create_many(batch[start : start + 20])


async def lateness(store: Store, fast: Receiver) -> list[int]:
    """Of each message to the fast destination, ms; in order."""

    async def all_delivered() -> bool:
        if len(fast.requests) < FAST + 1:
            return False
        found = [await store.messages.get(f"fast{number}") for number in range(FAST)]
        return all(message.state == "delivered" for message in found)

    await wait_until("all fast ones", all_delivered, 20)
    found = [await store.messages.get(f"fast{number}") for number in range(FAST)]
    return sorted(message.attempts[-1].lateness_ms for message in found)


@pytest.mark.usefixtures("names", "quiet")
@pytest.mark.parametrize(("kind", "hosts"), CASES)
async def test_slow_destinations_do_not_delay_a_fast_one(
    redis: Redis, prefix: str, receiver: Receiver, kind: str, hosts: int
) -> None:
    store = Store(redis, prefix=prefix)
    async with slow(kind) as url, dispatching(store):
        await store.messages.create("known", accepted(webhookUrl=receiver.url))
        await wait_until("it is known", lambda: len(receiver.requests) == 1)
        await create(store, url, hosts, kind)
        delays = [f"{FIRST + EVERY * number}ms" for number in range(FAST)]
        fast = [accepted(webhookUrl=receiver.url, delay=delay) for delay in delays]
        await store.messages.create_many([(f"fast{n}", each) for n, each in enumerate(fast)])
        late = await lateness(store, receiver)
    p99 = late[FAST * 99 // 100 - 1]
    print(f"\n{kind}, {hosts} hosts: p99 {p99} ms, max {late[-1]} ms")
    assert p99 < ALLOWED
