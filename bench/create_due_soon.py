"""A worker process that creates messages which are due within 20 ms, one after another.

python -m bench.create_due_soon reads a line of JSON, an Order, and prints when each was due.
"""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import uvloop

from bench.payloads import message
from bench.processes import Worker, answer
from bench.server import Target
from scheduler_api.domain.accept import accept
from scheduler_api.domain.message import NewMessage
from scheduler_api.store.connection.client import connect
from scheduler_api.store.store import Store

RATE = 100  # messages a second, at random intervals
AHEAD_MS = 20  # longest time from a create to the due instant

Create = Callable[[str, bytes], Awaitable[None]]


class Order(msgspec.Struct, frozen=True):
    """What to create, and where: over HTTP at `target`, else directly in the store at `address`."""

    hook: str
    prefix: str  # of the message ids
    count: int
    address: str
    target: Target | None = None


def create_soon(order: Order) -> list[int]:
    """Create in a worker process → due ms of each message."""
    with Worker("bench.create_due_soon") as worker:
        return msgspec.convert(worker.ask(order), list[int])


@asynccontextmanager
async def _by_http(target: Target) -> AsyncIterator[Create]:
    headers = {"Authorization": f"Bearer {target.token}"}
    base = f"http://{target.host}:{target.port}"
    async with aiohttp.ClientSession(base, headers=headers, raise_for_status=True) as session:

        async def create(_: str, body: bytes) -> None:
            async with session.post("/messages", data=body) as response:
                await response.read()

        yield create


@asynccontextmanager
async def _by_store(address: str) -> AsyncIterator[Create]:
    redis = connect(address)
    store = Store(redis)

    async def create(message_id: str, body: bytes) -> None:
        new = msgspec.json.decode(body, type=NewMessage)
        await store.messages.create(message_id, accept(new, "UTC", lambda *_: None))

    yield create
    await redis.aclose()


async def _run(order: Order) -> list[int]:
    due_ms, chance = [], random.Random(7)  # noqa: S311
    way = _by_http(order.target) if order.target else _by_store(order.address)
    async with way as create:
        for n in range(order.count):
            await asyncio.sleep(chance.expovariate(RATE))
            due_ms.append(time.time_ns() // 1_000_000 + chance.randint(0, AHEAD_MS))
            body = message(n, order.prefix, order.hook, due_ms[-1])
            await create(f"{order.prefix}-{n}", body)
    return due_ms


if __name__ == "__main__":
    answer(uvloop.run(_run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order))))
