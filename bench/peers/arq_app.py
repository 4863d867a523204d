"""arq under test, started by peer.py: its worker and its producer, in their own environment.

arq_app.py work|create ADDRESS IN_FLIGHT. work: says "ready", then sends what is due until its input
ends. create: reads one line of JSON, an Order, and answers with the seconds it took and its CPU
time.
"""

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp
import uvloop
from arq import create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Retry, Worker

CREATING = 64  # calls under way
POLL_DELAY = 0.05  # seconds; the default is 0.5
TIMEOUT = aiohttp.ClientTimeout(total=30)  # seconds
HEADERS = {"Content-Type": "application/json"}


def answer(value: Any) -> None:
    """One line to the one who asked."""
    print(json.dumps(value), flush=True)


async def deliver(ctx: dict[str, Any], hook: str, payload: Any) -> None:
    """One attempt; arq makes another one only after Retry."""
    body = json.dumps(payload).encode()
    try:
        async with ctx["session"].post(hook, data=body, headers=HEADERS) as response:
            await response.read()
            response.raise_for_status()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Retry from error


async def work(settings: RedisSettings, in_flight: int) -> None:
    """Until standard input ends."""

    async def say_ready(_: dict[str, Any]) -> None:
        answer("ready")

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=TIMEOUT) as session:
        worker = Worker(
            [func(deliver, name="deliver", keep_result=0, max_tries=5)],  # type: ignore[arg-type]
            redis_settings=settings,
            on_startup=say_ready,
            max_jobs=in_flight,
            poll_delay=POLL_DELAY,
            job_timeout=60,
            keep_result=0,
            handle_signals=False,
            ctx={"session": session},
        )
        working = asyncio.create_task(worker.async_run())
        await asyncio.to_thread(sys.stdin.buffer.read)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working


async def create(settings: RedisSettings) -> None:
    """All of one order."""
    pool = await create_pool(settings)
    order = json.loads(sys.stdin.buffer.readline())
    each = iter(enumerate(zip(order["due_ms"], order["payloads"], strict=True)))
    began = time.perf_counter()
    await asyncio.gather(*(_some(pool, order, each) for _ in range(CREATING)))
    answer({"seconds": time.perf_counter() - began, "cpu_s": time.process_time()})


async def _some(
    pool: ArqRedis, order: dict[str, Any], each: Iterator[tuple[int, tuple[int, Any]]]
) -> None:
    for n, (due_ms, payload) in each:
        due = datetime.fromtimestamp(due_ms / 1000, UTC)
        job_id = f"{order['prefix']}-{n}"
        await pool.enqueue_job("deliver", order["hook"], payload, _job_id=job_id, _defer_until=due)


if __name__ == "__main__":
    role, address, in_flight = sys.argv[1:]
    found = RedisSettings.from_dsn(address)
    found.max_connections = None
    uvloop.run(work(found, int(in_flight)) if role == "work" else create(found))
