"""A deadline cancels its task, and turns only its own cancellation into TimeoutError."""

import asyncio
import time

import pytest

from scheduler_api.delivery.http.deadlines import Deadline, Deadlines
from tests.support.waiting import wait_until


def soon(deadlines: Deadlines) -> Deadline:
    return deadlines.at(time.monotonic() + 0.01)


async def test_deadline_raises_timeout_error() -> None:
    with pytest.raises(TimeoutError), soon(Deadlines()):
        await asyncio.Event().wait()


async def test_deadline_raises_nothing_if_left_in_time() -> None:
    deadlines = Deadlines()
    with soon(deadlines):
        pass
    with pytest.raises(TimeoutError), soon(deadlines):
        await asyncio.Event().wait()


async def test_deadlines_expire_independently() -> None:
    deadlines = Deadlines()
    with deadlines.at(time.monotonic() + 60):
        with pytest.raises(TimeoutError), soon(deadlines):
            await asyncio.Event().wait()
        await asyncio.sleep(0)


async def test_deadline_entered_again_after_its_end_raises_at_once() -> None:
    deadline = soon(Deadlines())
    for _ in range(2):
        with pytest.raises(TimeoutError), deadline:
            await asyncio.Event().wait()


async def test_deadline_passes_on_another_cancellation() -> None:
    async def held_up() -> None:
        with Deadlines().at(time.monotonic() + 60):
            await asyncio.Event().wait()

    task = asyncio.create_task(held_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_deadline_passes_on_another_cancellation_at_its_end() -> None:
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


async def test_deadlines_do_not_tick_while_none_is_open() -> None:
    deadlines = Deadlines()
    with soon(deadlines):
        pass
    await wait_until("the last check", lambda: not deadlines.ticking)
