"""ByteBudget: order, growth, timeouts and cancellation."""

import asyncio

import pytest

from scheduler_api.byte_budget import ByteBudget
from tests.support.waiting import wait_until


def waiting(budget: ByteBudget, *sizes: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(budget.acquire(size)) for size in sizes]


async def granted(tasks: list[asyncio.Task[None]]) -> list[bool]:
    """Which of them have their bytes, after all possible grants."""
    await asyncio.wait(tasks, timeout=0.01)
    return [task.done() and not task.cancelled() for task in tasks]


async def test_acquire_returns_at_once_while_bytes_are_free() -> None:
    budget = ByteBudget(10)
    await budget.acquire(4)
    await budget.acquire(6)
    assert budget.held == 10
    assert not budget.try_acquire(1)


async def test_release_grants_bytes_in_the_order_of_requests() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    tasks = waiting(budget, 8, 2, 1)
    assert await granted(tasks) == [False, False, False]
    budget.release(10)
    assert await granted(tasks) == [True, True, False]
    budget.release(8)
    assert await granted(tasks) == [True, True, True]
    assert budget.held == 3


async def test_acquire_of_few_bytes_does_not_overtake_one_of_many() -> None:
    budget = ByteBudget(10)
    await budget.acquire(5)
    tasks = waiting(budget, 9, 1)
    assert await granted(tasks) == [False, False]
    assert not budget.try_acquire(1)
    budget.release(5)
    assert await granted(tasks) == [True, True]


async def test_acquire_of_more_than_the_limit_waits_until_nothing_else_is_held() -> None:
    budget = ByteBudget(10)
    await budget.acquire(1)
    tasks = waiting(budget, 50)
    assert await granted(tasks) == [False]
    budget.release(1)
    assert await granted(tasks) == [True]
    assert not budget.try_acquire(1)


async def test_grow_succeeds_while_bytes_are_free_or_nothing_else_is_held() -> None:
    budget = ByteBudget(10)
    assert budget.grow(0, 4)
    await budget.acquire(4)
    assert budget.grow(4, 2)
    assert not budget.grow(6, 1)
    budget.release(4)
    tasks = waiting(budget, 5)
    assert await granted(tasks) == [False]
    assert budget.grow(6, 50), "a sole holder must not wait for itself"
    assert budget.held == 56
    budget.release(56)
    assert await granted(tasks) == [True]


async def test_acquire_times_out_and_lets_the_next_one_go() -> None:
    budget = ByteBudget(10)
    await budget.acquire(5)
    large = asyncio.create_task(budget.acquire(9, timeout=0.05))
    small = waiting(budget, 5)
    assert await granted(small) == [False]
    with pytest.raises(TimeoutError):
        await large
    assert await granted(small) == [True]
    assert budget.held == 10


async def test_acquire_that_is_cancelled_holds_nothing() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    (task,) = waiting(budget, 10)
    assert await granted([task]) == [False]
    task.cancel()
    await asyncio.wait([task])
    budget.release(10)
    assert budget.held == 0
    assert budget.try_acquire(10)


async def test_acquire_that_is_cancelled_after_its_grant_returns_the_bytes() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    gone, stays = waiting(budget, 10, 10)
    assert await granted([gone, stays]) == [False, False]
    budget.release(10)
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    await wait_until("the other task has the bytes", stays.done)
    assert budget.held == 10


async def test_fail_waiting_raises_a_new_error_in_each_waiting_task() -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    tasks = waiting(budget, 1, 2, 3)
    assert await granted(tasks) == [False, False, False]
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    budget.fail_waiting(lambda: ValueError("refused"))
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in results] == [ValueError, asyncio.CancelledError, ValueError]
    assert results[0] is not results[2]
    assert budget.held == 10
    budget.release(10)
    assert budget.try_acquire(10)
