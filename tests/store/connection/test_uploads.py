"""Calls cut and bounded by bytes."""

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
    """Records the calls under way; ends them when it is told to."""

    def __init__(self) -> None:
        self.under_way: list[int] = []
        self.seen: list[int] = []
        self.end: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def call(self, number: int) -> str:
        self.seen.append(number)
        self.under_way.append(number)
        try:
            return await asyncio.shield(self.end)
        finally:
            self.under_way.remove(number)


def upload(uploads: Uploads, store: Store, sizes: Sequence[int]) -> list[asyncio.Task[str]]:
    return [
        asyncio.create_task(uploads.run(size, store.call, number))
        for number, size in enumerate(sizes)
    ]


def test_calls_have_at_most_so_many_items() -> None:
    assert list(split_calls(range(5), lambda _: 1, 2)) == [[0, 1], [2, 3], [4]]


def test_calls_have_at_most_so_many_bytes() -> None:
    half = CALL_BYTES // 2
    sizes = [half, half, 1, half, half, CALL_BYTES, 1]
    assert list(split_calls(sizes, lambda size: size, 100)) == [
        [half, half],
        [1, half],
        [half],
        [CALL_BYTES],
        [1],
    ]


def test_an_item_larger_than_a_call_is_one_by_itself() -> None:
    sizes = [1, 3 * CALL_BYTES, 1]
    assert list(split_calls(sizes, lambda size: size, 100)) == [[1], [3 * CALL_BYTES], [1]]


def test_of_no_items_there_is_no_call() -> None:
    assert list(split_calls([], lambda _: 1, 100)) == []


async def test_uploads_under_way_are_bounded_by_bytes() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [CALL_BYTES] * 10)
    most = MAX_UPLOAD // CALL_BYTES
    await wait_until("as many as may", lambda: len(store.under_way) == most)
    await asyncio.wait(tasks, timeout=0.01)
    assert store.seen == list(range(most))
    store.end.set_result("stored")
    assert await asyncio.gather(*tasks) == ["stored"] * 10


async def test_an_upload_larger_than_all_that_may_be_under_way_goes_alone() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [2 * MAX_UPLOAD, 1])
    await wait_until("the large one", lambda: store.under_way == [0])
    await asyncio.wait(tasks, timeout=0.01)
    assert store.under_way == [0]
    store.end.set_result("stored")
    await asyncio.gather(*tasks)


@pytest.mark.parametrize("error", [StoreUnavailable, OutcomeUnknown])
async def test_when_the_store_is_away_uploads_that_wait_are_refused_unsent(
    error: type[StoreUnavailable],
) -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [MAX_UPLOAD] * 3)
    await wait_until("the first", lambda: store.under_way == [0])
    store.end.set_exception(error())
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in told] == [error, StoreUnavailable, StoreUnavailable]
    assert store.seen == [0]


async def test_when_the_store_is_full_uploads_that_wait_are_tried() -> None:
    uploads, store = Uploads(), Store()
    tasks = upload(uploads, store, [MAX_UPLOAD] * 3)
    await wait_until("the first", lambda: store.under_way == [0])
    store.end.set_exception(StoreFull())
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in told] == [StoreFull] * 3
    assert store.seen == [0, 1, 2]


@contextmanager
def uncollected() -> Iterator[None]:
    """What references count as held stays; memory is traced."""
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
async def test_nothing_stays_of_creates_that_the_store_has_refused_or_lost(
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
            server.tell(signal.SIGSTOP)

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
        assert held < 4 * MIB, "what the last one or two left may still be there"
