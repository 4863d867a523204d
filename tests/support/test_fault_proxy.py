"""The fault proxy makes the faults that it is set to make, and no others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError

from scheduler_api.domain.errors import OutcomeUnknown
from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.store import Store
from tests.support import fault_proxy
from tests.support.factories import accepted
from tests.support.fault_proxy import FaultProxy, frame_end, proxying
from tests.support.stream_server import Streams, tcp_server

SOON = 0.05  # seconds after which missing bytes count as held back


@pytest.fixture
async def proxy(socket: Path) -> AsyncIterator[FaultProxy]:
    """A proxy in front of the tests' store."""
    async with proxying(socket) as proxy:
        yield proxy


@pytest.fixture
async def client(proxy: FaultProxy) -> AsyncIterator[Redis]:
    """A client through the proxy; its timeout is long, so that only the proxy's faults show."""
    client = connect(f"{proxy.address}?socket_timeout=30")
    yield client
    await close(client)


@pytest.fixture
async def echo() -> AsyncIterator[FaultProxy]:
    """A proxy in front of a server that echoes."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)

    async with (
        tcp_server(answer) as port,
        proxying(("127.0.0.1", port), resp=False) as proxy,
    ):
        yield proxy


async def dial(proxy: FaultProxy) -> Streams:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def rest(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the connection ends, in any way."""
    found = bytearray()
    with suppress(ConnectionError):
        while data := await reader.read(1):
            found += data
    return bytes(found)


async def is_silent(reader: asyncio.StreamReader) -> bool:
    try:
        await asyncio.wait_for(reader.read(1), SOON)
    except TimeoutError:
        return True
    return False


@pytest.mark.parametrize(
    "frame",
    [
        b"+OK\r\n",
        b":1\r\n",
        b"-ERR no\r\n",
        b"_\r\n",
        b"$3\r\nabc\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$4\r\n\r\n\r\n\r\n",
        b"*0\r\n",
        b"*-1\r\n",
        b"*2\r\n$1\r\na\r\n*1\r\n:3\r\n",
        b"%1\r\n+a\r\n:1\r\n",
        b">2\r\n+a\r\n+b\r\n",
        b"PING\r\n",
    ],
)
def test_frame_end_finds_a_frame_at_its_last_byte_and_not_before(frame: bytes) -> None:
    assert frame_end(frame + b"+next\r\n") == len(frame)
    assert [frame_end(frame[:size]) for size in range(len(frame))] == [0] * len(frame)


async def test_proxy_without_a_fault_passes_everything(client: Redis, proxy: FaultProxy) -> None:
    assert await client.ping()
    assert await client.echo("x" * 200_000) == b"x" * 200_000
    assert proxy.replies["ECHO"] == 1


async def test_proxy_passes_a_subscription(client: Redis, prefix: str) -> None:
    async with client.pubsub() as subscription:
        await subscription.subscribe(prefix)
        assert (await subscription.get_message(timeout=5))["type"] == "subscribe"
        await client.publish(prefix, "news")
        assert (await subscription.get_message(timeout=5))["data"] == b"news"


async def test_watch_gets_commands_and_replies_by_name_before_they_pass(
    client: Redis, proxy: FaultProxy, prefix: str
) -> None:
    seen: list[tuple[str, str]] = []

    async def watch(step: fault_proxy.Step, name: str) -> None:
        seen.append((step, name))

    store = Store(client, prefix=prefix)
    await store.queues[0].claim(1)
    proxy.watch = watch
    await store.queues[0].claim(1)
    assert seen == [("command", "claim"), ("reply", "claim")]


async def test_lose_reply_loses_that_reply_only(
    proxy: FaultProxy, redis: Redis, prefix: str
) -> None:
    patient = connect(f"{proxy.address}?socket_timeout=1")
    store = Store(patient, prefix=prefix)
    await store.messages.create("a", accepted())
    proxy.swallow_reply("create", nth=2)
    await store.messages.count()
    await store.messages.create("b", accepted())
    with pytest.raises(OutcomeUnknown) as error:
        await store.messages.create("c", accepted())
    assert error.value.__cause__ is not None
    assert isinstance(error.value.__cause__.__cause__, RedisTimeoutError)
    assert await Store(redis, prefix=prefix).messages.count() == 3, "the script itself has run"
    await store.messages.create("d", accepted())
    await patient.connection_pool.disconnect()


async def test_cut_reply_cuts_it_at_a_byte(proxy: FaultProxy) -> None:
    proxy.cut_reply("ECHO", nth=1, kept=6)
    reader, writer = await dial(proxy)
    writer.write(b"PING\r\nECHO abcdef\r\nPING\r\n")
    assert await rest(reader) == b"+PONG\r\n" + b"$6\r\nab"
    writer.close()


async def test_black_hole_holds_bytes_back_until_it_is_healed(echo: FaultProxy) -> None:
    reader, writer = await dial(echo)
    echo.black_hole("down")
    writer.write(b"abc")
    assert await is_silent(reader)
    await echo.heal()
    assert await reader.readexactly(3) == b"abc"
    writer.close()


async def test_proxy_ends_a_connection_after_so_many_bytes(echo: FaultProxy) -> None:
    reader, writer = await dial(echo)
    writer.write(b"abc")
    assert await reader.readexactly(3) == b"abc"
    echo.cut_after(2)
    writer.write(b"defg")
    assert await rest(reader) == b"de"
    writer.close()


async def test_proxy_forwards_nothing_after_a_cut_on_the_way_up(echo: FaultProxy) -> None:
    echo.cut_after(0, "up")
    reader, writer = await dial(echo)
    writer.write(b"abc")
    assert await rest(reader) == b""
    writer.close()


async def test_reset_ends_every_connection(echo: FaultProxy) -> None:
    reader, writer = await dial(echo)
    writer.write(b"abc")
    await reader.readexactly(3)
    echo.reset()
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(1)
    writer.close()


async def test_refuse_lets_no_connection_in_until_it_is_healed(echo: FaultProxy) -> None:
    port = echo.port
    await echo.refuse()
    with pytest.raises(ConnectionRefusedError):
        await dial(echo)
    await echo.heal()
    assert echo.port == port
    _, writer = await dial(echo)
    writer.close()


async def test_proxy_ends_a_connection_if_the_server_is_down(tmp_path: Path) -> None:
    async with proxying(tmp_path / "nobody") as proxy:
        reader, writer = await dial(proxy)
        assert await rest(reader) == b""
        writer.close()


async def test_latency_and_rate_change_only_the_time(echo: FaultProxy) -> None:
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    echo.latency(0.02, jitter=0.01)
    echo.rate(100_000)
    reader, writer = await dial(echo)
    writer.write(bytes(range(250)) * 40)
    assert await reader.readexactly(10_000) == bytes(range(250)) * 40
    assert loop.time() - began >= 0.02 + 10_000 / 100_000
    writer.close()


def test_proxy_of_the_same_seed_has_the_same_jitter(tmp_path: Path) -> None:
    drawn = [FaultProxy(tmp_path, seed=seed).random.random() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
