"""Calls split by items and bytes, and the limit of bytes in open calls."""

import asyncio
import gc
import signal
import tracemalloc
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from scheduler_api.domain.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from scheduler_api.store.connection.uploads import CALL_BYTES, MAX_UPLOAD, Uploads, split_calls
from scheduler_api.store.store import Store as RealStore
from tests.support.factories import accepted
from tests.support.valkey import Valkey, client, valkey_server
from tests.support.waiting import wait_until

MIB = 1024**2


class Store:
    """Records the open calls, and ends them when `end` has a result."""

    def __init__(self) -> None:
        self.open: list[int] = []
        self.seen: list[int] = []
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def call(self, number: int) -> str:
        self.seen.append(number)
        self.open.append(number)
        try:
            return await asyncio.shield(self.end)
        finally:
            self.open.remove(number)


def upload(uploads: Uploads, store: Store, sizes: Sequence[int]) -> list[asyncio.Task[str]]:
    return [
        asyncio.create_task(uploads.run(size, store.call, number))
        for number, size in enumerate(sizes)
    ]


def test_split_calls_has_at_most_max_items_in_a_call() -> None:
    assert list(split_calls(range(5), lambda _: 1, 2)) == [[0, 1], [2, 3], [4]]


def test_split_calls_has_at_most_call_bytes_in_a_call() -> None:
    half = CALL_BYTES // 2
    sizes = [half, half, 1, half, half, CALL_BYTES, 1]
    assert list(split_calls(sizes, lambda size: size, 100)) == [
        [half, half],
        [1, half],
        [half],
        [CALL_BYTES],
        [1],
    ]


def test_split_calls_puts_a_larger_item_into_its_own_call() -> None:
    sizes = [1, 3 * CALL_BYTES, 1]
    assert list(split_calls(sizes, lambda size: size, 100)) == [[1], [3 * CALL_BYTES], [1]]


def test_split_calls_of_no_items_is_empty() -> None:
    assert list(split_calls([], lambda _: 1, 100)) == []


async def test_run_limits_the_bytes_of_open_calls() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [CALL_BYTES] * 10)
    allowed = MAX_UPLOAD // CALL_BYTES
    await wait_until("the allowed calls", lambda: len(store.open) == allowed)
    await asyncio.wait(tasks, timeout=0.01)
    assert store.seen == list(range(allowed))
    store.end.set_result("stored")
    assert await asyncio.gather(*tasks) == ["stored"] * 10


async def test_run_sends_a_call_above_the_limit_alone() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [2 * MAX_UPLOAD, 1])
    await wait_until("the large one", lambda: store.open == [0])
    await asyncio.wait(tasks, timeout=0.01)
    assert store.open == [0]
    store.end.set_result("stored")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("error", [StoreUnavailable, OutcomeUnknown])
async def test_run_refuses_waiting_calls_when_the_store_is_away(
    error: type[StoreUnavailable],
) -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [MAX_UPLOAD] * 3)
    await wait_until("the first", lambda: store.open == [0])
    store.end.set_exception(error())
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in results] == [error, StoreUnavailable, StoreUnavailable]
    assert store.seen == [0]


async def test_run_tries_waiting_calls_when_the_store_is_full() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [MAX_UPLOAD] * 3)
    await wait_until("the first", lambda: store.open == [0])
    store.end.set_exception(StoreFull())
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in results] == [StoreFull] * 3
    assert store.seen == [0, 1, 2]


@contextmanager
def uncollected() -> Iterator[None]:
    """Without garbage collection, and with traced memory."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Valkey]:
    async with valkey_server(tmp_path) as one:
        yield one


@pytest.mark.parametrize("ending", ["full", "gone", "frozen"])
@pytest.mark.parametrize("many", [False, True])
async def test_create_leaves_nothing_in_memory_after_the_store_refused_or_lost_it(
    server: Valkey, ending: str, *, many: bool
) -> None:
    async with client(f"{server.address}?socket_timeout=0.2") as redis:
        store = RealStore(redis)
        await store.check()
        await store.messages.create("first", accepted(delay="1d"))
        if ending == "full":
            await redis.config_set("maxmemory", 1)
        elif ending == "gone":
            await server.stop(signal.SIGKILL)
        else:
            server.send_signal(signal.SIGSTOP)

        async def refused(number: int) -> None:
            new = accepted(delay="1d", payload="x" * MIB)
            if many:
                (one,) = await store.messages.create_many([(f"{number}", new)])
                assert isinstance(one, (StoreFull, StoreUnavailable))
            else:
                with pytest.raises((StoreFull, StoreUnavailable)):
                    await store.messages.create(f"{number}", new)

        await refused(0)
        with uncollected():
            for number in range(1, 9):
                await refused(number)
            held, _ = tracemalloc.get_traced_memory()
        assert held < 4 * MIB, "the last one or two may still be in memory"
