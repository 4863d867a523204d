"""Single calls batched into one."""

import asyncio
import gc
import weakref
from collections.abc import Sequence
from contextlib import suppress

import pytest

from scheduler_api.domain.errors import OutcomeUnknown, StoreFull, StoreUnavailable
from scheduler_api.store.connection.batching import MAX_BATCH_CALLS, Batcher, all_results
from scheduler_api.store.connection.uploads import CALL_BYTES
from tests.support.waiting import wait_until


class Calls:
    """Doubles numbers, records each call, and holds the results back while `open` is not set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def double(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        await self.open.wait()
        return [2 * number for number in batch]


async def refuse(_: Sequence[int]) -> list[int]:
    raise ValueError("refused")


async def submit_all(batcher: Batcher[int, int], count: int) -> list[int]:
    return await asyncio.gather(*(batcher.submit(number) for number in range(count)))


async def test_submit_makes_one_call_of_the_items_of_one_loop_turn() -> None:
    calls = Calls()
    assert await submit_all(Batcher(calls.double), 3) == [0, 2, 4]
    assert calls.batches == [[0, 1, 2]]


async def test_submit_makes_calls_of_at_most_max_items() -> None:
    calls = Calls()
    assert await submit_all(Batcher(calls.double, max_items=2), 5) == [0, 2, 4, 6, 8]
    assert calls.batches == [[0, 1], [2, 3], [4]]


async def test_submit_of_a_full_batch_does_not_wait_for_the_delay() -> None:
    calls = Calls()
    batcher = Batcher(calls.double, delay=60, max_items=2)
    assert await asyncio.wait_for(submit_all(batcher, 2), 5) == [0, 2]


async def test_submit_makes_one_call_of_the_items_within_the_delay() -> None:
    calls = Calls()
    batcher = Batcher(calls.double, delay=0.05)
    first = asyncio.create_task(batcher.submit(1))
    await asyncio.sleep(0)
    assert await batcher.submit(2) == 4
    assert await first == 2
    assert calls.batches == [[1, 2]]


async def test_submit_during_the_allowed_calls_makes_the_next_call_larger() -> None:
    calls = Calls()
    calls.open.clear()
    batcher = Batcher(calls.double, max_items=1)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(MAX_BATCH_CALLS)]
    await wait_until("all allowed calls", lambda: len(calls.batches) == MAX_BATCH_CALLS)
    tasks += [asyncio.create_task(batcher.submit(number)) for number in range(MAX_BATCH_CALLS, 10)]
    await asyncio.wait(tasks, timeout=0.01)
    assert len(calls.batches) == MAX_BATCH_CALLS
    calls.open.set()
    assert await asyncio.gather(*tasks) == [2 * number for number in range(10)]


async def test_submit_raises_the_error_of_the_call_for_every_caller() -> None:
    batcher: Batcher[int, int] = Batcher(refuse)
    results = await asyncio.gather(*(batcher.submit(n) for n in range(3)), return_exceptions=True)
    assert [str(error) for error in results] == ["refused"] * 3


async def test_submit_after_an_error_makes_the_next_call() -> None:
    batcher: Batcher[int, int] = Batcher(refuse)
    for _ in range(MAX_BATCH_CALLS + 1):
        with pytest.raises(ValueError, match="refused"):
            await batcher.submit(1)


async def test_submit_that_is_cancelled_does_not_cancel_the_call_of_others() -> None:
    calls = Calls()
    calls.open.clear()
    batcher = Batcher(calls.double)
    gone, stays = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
    await wait_until("the call", lambda: calls.batches == [[1, 2]])
    gone.cancel()
    await asyncio.wait([gone])
    calls.open.set()
    assert await stays == 4


async def test_submit_that_was_cancelled_gets_no_error() -> None:
    started, fail = asyncio.Event(), asyncio.Event()

    async def wait_and_refuse(batch: Sequence[int]) -> list[int]:
        started.set()
        await fail.wait()
        return await refuse(batch)

    batcher: Batcher[int, int] = Batcher(wait_and_refuse)
    gone, stays = (asyncio.create_task(batcher.submit(number)) for number in (1, 2))
    await started.wait()
    gone.cancel()
    await asyncio.wait([gone])
    fail.set()
    with pytest.raises(ValueError, match="refused"):
        await stays


async def test_submit_makes_calls_of_at_most_call_bytes_and_at_least_one_item() -> None:
    calls = Calls()
    batcher = Batcher(calls.double)
    sizes = [CALL_BYTES // 2, CALL_BYTES // 2, 1, 3 * CALL_BYTES, 1]
    await asyncio.gather(*(batcher.submit(n, size) for n, size in enumerate(sizes)))
    assert calls.batches == [[0, 1], [2], [3], [4]]


async def test_submit_of_enough_bytes_does_not_wait_for_the_delay() -> None:
    calls = Calls()
    batcher = Batcher(calls.double, delay=60)
    assert await asyncio.wait_for(batcher.submit(1, CALL_BYTES), 5) == 2


class Away:
    """A store that loses each call on request."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.lost = asyncio.Event()
        self.batches: list[list[int]] = []

    async def call(self, batch: Sequence[int]) -> list[int]:
        self.batches.append(list(batch))
        await self.lost.wait()
        raise self.error


async def test_submit_refuses_items_that_waited_during_a_whole_lost_call() -> None:
    away = Away(OutcomeUnknown())
    batcher = Batcher(away.call, max_items=1)
    tasks = [asyncio.create_task(batcher.submit(number)) for number in range(MAX_BATCH_CALLS)]
    await wait_until("the calls", lambda: len(away.batches) == MAX_BATCH_CALLS)
    tasks += [asyncio.create_task(batcher.submit(number)) for number in range(50)]
    await asyncio.wait(tasks, timeout=0.01)
    tasks[-1].cancel()
    away.lost.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in results[:MAX_BATCH_CALLS]] == [OutcomeUnknown] * MAX_BATCH_CALLS
    # These were submitted after the first calls started, so one more call is made for them.
    later = [type(one) for one in results[MAX_BATCH_CALLS:-1]]
    assert later == [OutcomeUnknown] * MAX_BATCH_CALLS + [StoreUnavailable] * (49 - MAX_BATCH_CALLS)
    assert isinstance(results[-1], asyncio.CancelledError)
    assert len(away.batches) == 2 * MAX_BATCH_CALLS


async def test_submit_tries_items_that_waited_while_a_full_store_refused() -> None:
    away = Away(StoreFull())
    away.lost.set()
    batcher = Batcher(away.call, max_items=1)
    results = await asyncio.gather(*(batcher.submit(n) for n in range(20)), return_exceptions=True)
    assert [type(one) for one in results] == [StoreFull] * 20
    assert len(away.batches) == 20


async def test_submit_leaves_no_reference_to_an_item_after_an_error() -> None:
    """An error holds the frames that it passed. No frame may hold the error or an item."""

    class Item:
        """An item that a weak reference can follow."""

    async def refuse_items(_: Sequence[Item]) -> list[int]:
        raise ValueError("refused")

    batcher: Batcher[Item, int] = Batcher(refuse_items)
    item = Item()
    there = weakref.ref(item)
    gc.disable()
    try:
        submitted = batcher.submit(item)
        del item
        with suppress(ValueError):
            await submitted
        del submitted
        await wait_until("the call's end", lambda: not batcher._running)
        assert there() is None
    finally:
        gc.enable()


async def test_all_results_raises_the_first_error_after_all_calls_have_ended() -> None:
    ended: list[int] = []

    async def call(number: int, turns: int) -> int:
        for _ in range(turns):
            await asyncio.sleep(0)
        ended.append(number)
        if number:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="1"):
        await all_results([call(0, 3), call(1, 2), call(2, 1)])
    assert ended == [2, 1, 0]
    assert await all_results([call(0, 1), call(0, 2)]) == [0, 0]
