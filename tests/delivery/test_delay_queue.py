"""Tasks wait for an instant each."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from scheduler_api.delivery.delay_queue import DelayQueue


@pytest.fixture
async def starts() -> AsyncIterator[DelayQueue]:
    starts = DelayQueue()
    yield starts
    starts.close()


async def test_wait_ends_after_its_instant_the_earliest_first(starts: DelayQueue) -> None:
    woken: list[float] = []

    async def wait(at: float) -> None:
        await starts.wait(at)
        assert time.monotonic() > at
        woken.append(at)

    now = time.monotonic()
    instants = [now + after for after in (0.04, 0.02, 0.06, 0.02, -1, 0.05)]
    await asyncio.gather(*map(wait, instants))
    assert woken == sorted(instants)


async def test_wait_that_was_cancelled_delays_no_other(starts: DelayQueue) -> None:
    now = time.monotonic()
    first = asyncio.create_task(starts.wait(now + 0.02))
    await asyncio.sleep(0)
    first.cancel()
    await starts.wait(now + 0.04)
    assert first.cancelled()


async def test_close_without_a_wait_does_nothing() -> None:
    DelayQueue().close()
