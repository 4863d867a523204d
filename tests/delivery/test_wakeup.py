"""One sleeper, many reasons to wake it."""

import asyncio
from collections.abc import Iterator

import pytest

from scheduler_api.delivery.wakeup import Wakeup


@pytest.fixture
def wakeup() -> Iterator[Wakeup]:
    wakeup = Wakeup()
    yield wakeup
    wakeup.close()


async def woken(wakeup: Wakeup) -> bool:
    """Whether the sleeper wakes within a second, far below the safety poll."""
    try:
        async with asyncio.timeout(1):
            await wakeup.wait()
    except TimeoutError:
        return False
    return True


async def test_now_wakes(wakeup: Wakeup) -> None:
    wakeup.now()
    assert await woken(wakeup)


async def test_now_wakes_once(wakeup: Wakeup) -> None:
    wakeup.now()
    await wakeup.wait()
    assert not await woken(wakeup)


async def test_within_wakes(wakeup: Wakeup) -> None:
    wakeup.within(0.001)
    assert await woken(wakeup)


async def test_within_keeps_the_earliest_instant(wakeup: Wakeup) -> None:
    wakeup.within(0.001)
    wakeup.within(60)
    assert await woken(wakeup)
    wakeup.within(60)
    wakeup.within(0.001)
    assert await woken(wakeup)


async def test_within_may_follow_a_timer_that_fires_in_this_loop_turn(
    wakeup: Wakeup,
) -> None:
    for seconds in (0.0, 0.0001, 60, 0.0, 0.0002):
        wakeup.within(seconds)
    assert await woken(wakeup)


async def test_wait_ends_at_the_safety_poll() -> None:
    wakeup = Wakeup(safety_poll=0.01)
    assert await woken(wakeup)
    wakeup.close()
    assert not await woken(wakeup)


def test_close_without_a_timer_does_nothing() -> None:
    Wakeup().close()
