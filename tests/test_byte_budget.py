"""Budgets of bytes."""

import asyncio

import pytest

from scheduler_api.byte_budget import Budget
from tests.support.waiting import wait_until


def waiting(budget: Budget, *sizes: int) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(budget.take(size)) for size in sizes]


async def granted(tasks: list[asyncio.Task[None]]) -> list[bool]:
    """Which of them have their bytes, once all that can be granted is."""
    await asyncio.wait(tasks, timeout=0.01)
    return [task.done() and not task.cancelled() for task in tasks]


async def test_take_returns_at_once_while_bytes_are_free() -> None:
    budget = Budget(10)
    await budget.take(4)
    await budget.take(6)
    assert budget.held == 10
    assert not budget.take_now(1)


async def test_give_lets_those_that_wait_go_in_the_order_of_asking() -> None:
    budget = Budget(10)
    await budget.take(10)
    tasks = waiting(budget, 8, 2, 1)
    assert await granted(tasks) == [False, False, False]
    budget.give(10)
    assert await granted(tasks) == [True, True, False]
    budget.give(8)
    assert await granted(tasks) == [True, True, True]
    assert budget.held == 3


async def test_a_small_wish_does_not_overtake_a_large_one() -> None:
    budget = Budget(10)
    await budget.take(5)
    tasks = waiting(budget, 9, 1)
    assert await granted(tasks) == [False, False]
    assert not budget.take_now(1)
    budget.give(5)
    assert await granted(tasks) == [True, True]


async def test_more_than_all_is_granted_when_nothing_else_is_held() -> None:
    budget = Budget(10)
    await budget.take(1)
    tasks = waiting(budget, 50)
    assert await granted(tasks) == [False]
    budget.give(1)
    assert await granted(tasks) == [True]
    assert not budget.take_now(1)


async def test_a_holder_grows_while_bytes_are_free_or_when_nothing_else_is_held() -> None:
    budget = Budget(10)
    assert budget.grow(0, 4)
    await budget.take(4)
    assert budget.grow(4, 2)
    assert not budget.grow(6, 1)
    budget.give(4)
    tasks = waiting(budget, 5)
    assert await granted(tasks) == [False]
    assert budget.grow(6, 50), "it waits for nobody, so it keeps nobody waiting for ever"
    assert budget.held == 56
    budget.give(56)
    assert await granted(tasks) == [True]


async def test_take_gives_up_after_its_time_and_lets_the_next_go() -> None:
    budget = Budget(10)
    await budget.take(5)
    large = asyncio.create_task(budget.take(9, within=0.05))
    small = waiting(budget, 5)
    assert await granted(small) == [False]
    with pytest.raises(TimeoutError):
        await large
    assert await granted(small) == [True]
    assert budget.held == 10


async def test_a_wait_that_is_cancelled_holds_nothing() -> None:
    budget = Budget(10)
    await budget.take(10)
    (task,) = waiting(budget, 10)
    assert await granted([task]) == [False]
    task.cancel()
    await asyncio.wait([task])
    budget.give(10)
    assert budget.held == 0
    assert budget.take_now(10)


async def test_bytes_granted_to_a_task_that_was_cancelled_meanwhile_come_back() -> None:
    budget = Budget(10)
    await budget.take(10)
    gone, stays = waiting(budget, 10, 10)
    assert await granted([gone, stays]) == [False, False]
    budget.give(10)
    gone.cancel()
    await asyncio.wait([gone])
    assert gone.cancelled()
    await wait_until("the other has them", stays.done)
    assert budget.held == 10


async def test_refuse_ends_the_wait_of_all_with_an_error_each() -> None:
    budget = Budget(10)
    await budget.take(10)
    tasks = waiting(budget, 1, 2, 3)
    assert await granted(tasks) == [False, False, False]
    tasks[1].cancel()
    await asyncio.wait([tasks[1]])
    budget.refuse(lambda: ValueError("refused"))
    told = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in told] == [ValueError, asyncio.CancelledError, ValueError]
    assert told[0] is not told[2]
    assert budget.held == 10
    budget.give(10)
    assert budget.take_now(10)
