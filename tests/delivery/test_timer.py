"""An instant that rings."""

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
    """What the timer finds."""
    monkeypatch.setattr(timer, "_LIBC", SYSTEMS[request.param])


class Bell:
    """Hears the timer."""

    def __init__(self) -> None:
        self._rang = asyncio.Event()
        self.timer = Timer(self._rang.set)

    async def rings(self, within: float = 5) -> bool:
        """Whether it does, in so many seconds."""
        try:
            async with asyncio.timeout(within):
                await self._rang.wait()
        except TimeoutError:
            return False
        self._rang.clear()
        return True


@pytest.fixture
async def bell() -> AsyncIterator[Bell]:
    bell = Bell()
    yield bell
    bell.timer.close()


async def test_it_rings_once_for_each_setting(bell: Bell) -> None:
    for _ in range(2):
        bell.timer.set(time.monotonic() + 0.02)
        assert await bell.rings()
        assert not await bell.rings(0.05)


async def test_the_last_setting_counts(bell: Bell) -> None:
    bell.timer.set(time.monotonic() + 0.001)
    bell.timer.set(time.monotonic() + 60)
    assert not await bell.rings(0.05)
    bell.timer.set(time.monotonic() - 60)
    assert await bell.rings()


@pytest.mark.parametrize("end", [Timer.clear, Timer.close])
async def test_cleared_or_closed_it_does_not_ring(end: Callable[[Timer], None]) -> None:
    bell = Bell()
    bell.timer.set(time.monotonic() + 0.001)
    end(bell.timer)
    assert not await bell.rings(0.05)


@pytest.mark.parametrize("system", ["as it is"], indirect=True)
async def test_it_rings_at_the_instant_not_before() -> None:
    bell = Bell()
    for fraction in range(20):
        at = time.monotonic() + 0.001 + fraction / 10_000
        bell.timer.set(at)
        assert await bell.rings()
        assert time.monotonic() >= at
    bell.timer.close()
