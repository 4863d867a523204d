"""A timer fires at its instant, with timerfd and without."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace

import pytest

from scheduler_api.delivery import timer
from scheduler_api.delivery.timer import Timer

SYSTEMS = {
    "as it is": timer._LIBC,
    "without timerfd": SimpleNamespace(),
    "without descriptors": SimpleNamespace(timerfd_create=lambda *_: -1),
}


@pytest.fixture(params=SYSTEMS, autouse=True)
def system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system that the timer finds."""
    monkeypatch.setattr(timer, "_LIBC", SYSTEMS[request.param])


class Fired:
    """Waits for the timer."""

    def __init__(self) -> None:
        self._fired = asyncio.Event()
        self.timer = Timer(self._fired.set)

    async def fires(self, within: float = 5) -> bool:
        """Whether it fires within this many seconds."""
        try:
            async with asyncio.timeout(within):
                await self._fired.wait()
        except TimeoutError:
            return False
        self._fired.clear()
        return True


@pytest.fixture
async def fired() -> AsyncIterator[Fired]:
    fired = Fired()
    yield fired
    fired.timer.close()


async def test_timer_fires_once_for_each_set(fired: Fired) -> None:
    for _ in range(2):
        fired.timer.set(time.monotonic() + 0.02)
        assert await fired.fires()
        assert not await fired.fires(0.05)


async def test_set_replaces_the_instant_before(fired: Fired) -> None:
    fired.timer.set(time.monotonic() + 0.001)
    fired.timer.set(time.monotonic() + 60)
    assert not await fired.fires(0.05)
    fired.timer.set(time.monotonic() - 60)
    assert await fired.fires()


@pytest.mark.parametrize("end", [Timer.clear, Timer.close])
async def test_timer_does_not_fire_after_clear_or_close(end: Callable[[Timer], None]) -> None:
    fired = Fired()
    fired.timer.set(time.monotonic() + 0.001)
    end(fired.timer)
    assert not await fired.fires(0.05)


@pytest.mark.parametrize("system", ["as it is"], indirect=True)
async def test_timer_fires_at_the_instant_not_before() -> None:
    fired = Fired()
    for fraction in range(20):
        at = time.monotonic() + 0.001 + fraction / 10_000
        fired.timer.set(at)
        assert await fired.fires()
        assert time.monotonic() >= at
    fired.timer.close()
