"""A worker process that fills an external store directly, without the API.

python -m bench.fill_store reads a line of JSON, a Filling, and prints the seconds it took.
"""

import sys
import time

import msgspec
import uvloop

from bench.external_store import ExternalStore
from bench.payloads import message
from bench.processes import Worker, answer
from scheduler_api.domain.accept import accept
from scheduler_api.domain.message import Accepted, NewMessage
from scheduler_api.store.codec.record import from_ms
from scheduler_api.store.connection.client import connect
from scheduler_api.store.store import Store

TOGETHER = 1000  # messages in a call
DAY_MS = 24 * 3600 * 1000


class Filling(msgspec.Struct, frozen=True):
    """Messages `first` … `first` + `count` − 1, a millisecond apart."""

    address: str
    prefix: str  # of the message ids
    hook: str
    due_ms: int  # of the first
    count: int
    first: int = 0


def fill(
    store: ExternalStore, prefix: str, hook: str, due_ms: int, count: int, first: int = 0
) -> float:
    """Fill from a worker process → seconds."""
    with Worker("bench.fill_store") as worker:
        return float(worker.ask(Filling(store.address, prefix, hook, due_ms, count, first)))


def tomorrow() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000 + DAY_MS


def _sample(filling: Filling) -> Accepted:
    """One of the messages; the others have the same body, which costs a store the same."""
    body = message(10**9, filling.prefix, filling.hook, filling.due_ms)
    return accept(msgspec.json.decode(body, type=NewMessage), "UTC", lambda *_: None)


async def _fill(filling: Filling) -> float:
    redis = connect(filling.address)
    store, sample = Store(redis), _sample(filling)
    await store.check()
    began, last = time.perf_counter(), filling.first + filling.count
    for start in range(filling.first, last, TOGETHER):
        await _create(store, filling, sample, range(start, min(start + TOGETHER, last)))
    await redis.aclose()
    return time.perf_counter() - began


async def _create(store: Store, filling: Filling, sample: Accepted, numbers: range) -> None:
    new = [(f"{filling.prefix}-{n}", _due(sample, filling.due_ms + n)) for n in numbers]
    for stored in await store.messages.create_many(new):
        if isinstance(stored, Exception):
            raise stored


def _due(sample: Accepted, ms: int) -> Accepted:
    return msgspec.structs.replace(sample, due_at=from_ms(ms))


if __name__ == "__main__":
    answer(uvloop.run(_fill(msgspec.json.decode(sys.stdin.buffer.readline(), type=Filling))))
