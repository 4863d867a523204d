"""The ceiling of deliver and lateness: a bare aiohttp client that sends prepared bodies.

python -m bench.ceilings.poster reads one line of JSON, an Order, and answers with a Posted.
"""

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import msgspec
import uvloop

from bench.payloads import payload
from bench.processes import Worker, answer

TIMEOUT = aiohttp.ClientTimeout(total=30)
HEADERS = {"Content-Type": "application/json"}

Post = Callable[[bytes], Awaitable[None]]


class Order(msgspec.Struct, frozen=True):
    """What to send."""

    hook: str
    count: int
    due_ms: Sequence[int] = ()  # due ms of each; empty: all at once
    in_flight: int = 256


class Posted(msgspec.Struct, frozen=True):
    """The result."""

    statuses: dict[int, int]
    cpu_s: float  # of the client


def post(order: Order) -> Posted:
    """Send from a worker process."""
    with Worker("bench.ceilings.poster") as worker:
        return msgspec.convert(worker.ask(order), Posted, strict=False)


async def _at_once(order: Order, bodies: list[bytes], post: Post) -> None:
    slots = asyncio.Semaphore(order.in_flight)

    async def one(body: bytes) -> None:
        try:
            await post(body)
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for body in bodies:
            await slots.acquire()
            group.create_task(one(body))


async def _by_timers(order: Order, bodies: list[bytes], post: Post) -> None:
    async def one(body: bytes, due_ms: int) -> None:
        # A timer has whole milliseconds and may fire a little early: then wait again.
        while (left := due_ms / 1000 - time.time()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)
        await post(body)

    async with asyncio.TaskGroup() as group:
        for body, due_ms in zip(bodies, order.due_ms, strict=True):
            group.create_task(one(body, due_ms))


async def _run(order: Order) -> Posted:
    bodies = [payload(n) for n in range(order.count)]
    statuses: Counter[int] = Counter()
    connector = aiohttp.TCPConnector(limit=order.in_flight)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:

        async def post(body: bytes) -> None:
            async with session.post(order.hook, data=body, headers=HEADERS) as response:
                await response.read()
                statuses[response.status] += 1

        cpu = time.process_time()
        await (_by_timers if order.due_ms else _at_once)(order, bodies, post)
        cpu = time.process_time() - cpu
    return Posted(dict(statuses), round(cpu, 3))


if __name__ == "__main__":
    answer(uvloop.run(_run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Order))))
