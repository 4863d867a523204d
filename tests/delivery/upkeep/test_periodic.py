"""A step is repeated also after an error; a task is cancelled until it has ended."""

import asyncio

from scheduler_api.delivery.upkeep.periodic import cancel_all, repeat
from scheduler_api.domain.errors import StoreUnavailable
from tests.delivery.upkeep.conftest import running


async def test_repeat_continues_after_errors_of_the_store_and_bugs() -> None:
    errors = [StoreUnavailable(), RuntimeError("a bug")]
    done = asyncio.Event()

    async def step() -> None:
        if errors:
            raise errors.pop()
        done.set()

    async with running(asyncio.create_task(repeat(step, 0.001))):
        async with asyncio.timeout(5):
            await done.wait()


async def test_repeat_retries_sooner_after_the_store_was_away() -> None:
    errors = [StoreUnavailable(), StoreUnavailable()]
    done = asyncio.Event()

    async def step() -> None:
        if errors:
            raise errors.pop()
        done.set()

    repeating = repeat(step, 3600, first=0, retry=0.001)
    async with running(asyncio.create_task(repeating)):
        async with asyncio.timeout(5):
            await done.wait()


async def test_cancel_all_cancels_again_if_a_cancellation_was_lost() -> None:
    async def lose_one() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    task = asyncio.create_task(lose_one())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancel_all([task])
    assert task.cancelled()
