"""The ceiling of batch: bare script calls on an embedded store, fsync always.

python -m bench.ceilings.pipeline reads one line of JSON, a Piping, and answers with messages/s.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog
import uvloop
from redis.asyncio import Redis

from bench.ceilings.ingest import ADD
from bench.fill_store import tomorrow
from bench.payloads import message
from bench.processes import Worker, answer
from scheduler_api.store.embedded.supervisor import EmbeddedStore

CALLS = 4  # calls at once


class Piping(msgspec.Struct, frozen=True):
    """Number of messages, and number in a call."""

    count: int
    together: int


def pipe(piping: Piping) -> float:
    """Run in a worker process → messages/s."""
    with Worker("bench.ceilings.pipeline") as worker:
        return float(worker.ask(piping))


async def _pipe(piping: Piping) -> float:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        store = EmbeddedStore(Path(folder))
        await store.start()
        async with Redis(unix_socket_path=str(store.socket)) as redis:
            rate = await _rate(redis, _calls(piping), piping.count)
        await store.stop()
    return rate


def _calls(piping: Piping) -> list[list[bytes | str | int]]:
    first, calls = tomorrow(), []
    for start in range(0, piping.count, piping.together):
        args: list[bytes | str | int] = []
        for n in range(start, min(start + piping.together, piping.count)):
            body = message(n, "bench", "http://127.0.0.1:2/hook", first + n)
            args += (f"bench-{n}", first + n, body)
        calls.append(args)
    return calls


async def _rate(redis: Redis, calls: Sequence[Sequence[bytes | str | int]], count: int) -> float:
    add, each = redis.register_script(ADD), iter(calls)

    async def some() -> None:
        for args in each:
            await add(keys=["due", "messages"], args=args)

    began = time.perf_counter()
    await asyncio.gather(*(some() for _ in range(CALLS)))
    return round(count / (time.perf_counter() - began), 1)


if __name__ == "__main__":
    # Nothing but the answer may go to standard output.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    answer(uvloop.run(_pipe(msgspec.json.decode(sys.stdin.buffer.readline(), type=Piping))))
