"""A loop whose clock runs ahead, for what takes minutes of doing nothing."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

PACE = 60  # seconds of the loop's clock in one second


class _Selector(selectors.DefaultSelector):
    """Waits as much shorter as the clock is faster."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout and timeout / PACE)


class _Loop(asyncio.SelectorEventLoop):
    """Its timers go by its clock; everybody else's clock stays as it is."""

    def time(self) -> float:
        return super().time() * PACE


def run_hastily(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The coroutine's result, when no loop runs in this thread."""
    with asyncio.Runner(loop_factory=lambda: _Loop(_Selector())) as runner:
        return runner.run(coroutine)
