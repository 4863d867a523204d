"""Requests end in time, by cancellations that nobody else sees."""

import asyncio
import time

import pytest

from scheduler_api.delivery.http.deadlines import Deadline, Deadlines
from tests.support.waiting import wait_until


def soon(deadlines: Deadlines) -> Deadline:
    return deadlines.at(time.monotonic() + 0.01)


async def test_what_is_not_left_in_time_is_a_timeout() -> None:
    with pytest.raises(TimeoutError), soon(Deadlines()):
        await asyncio.Event().wait()


async def test_what_is_left_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with soon(deadlines):
        pass
    with pytest.raises(TimeoutError), soon(deadlines):
        await asyncio.Event().wait()


async def test_one_of_two_may_be_over_long_before_the_other() -> None:
    deadlines = Deadlines()
    with deadlines.at(time.monotonic() + 60):
        with pytest.raises(TimeoutError), soon(deadlines):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_a_context_may_be_entered_again_and_is_then_over_at_once() -> None:
    deadline = soon(Deadlines())
    for _ in range(2):
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def held_up() -> None:
        with Deadlines().at(time.monotonic() + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(held_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_elsewhere_wins_over_the_end_of_the_time() -> None:
    deadline = Deadlines().at(0)

    async def held_up() -> None:
        with deadline:
            await asyncio.Event().wait()

    task = asyncio.create_task(held_up())
    await asyncio.sleep(0)
    deadline.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_nothing_is_looked_at_while_nothing_is_open() -> None:
    deadlines = Deadlines()
    with soon(deadlines):
        pass
    await wait_until("the last look", lambda: not deadlines.ticking)
