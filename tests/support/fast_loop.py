"""An event loop whose clock runs 60 times as fast, for tests that would wait for minutes."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

PACE = 60  # seconds of the loop's clock in a real second


class _Selector(selectors.DefaultSelector):
    """Waits so much shorter."""

    def select(self, timeout: float | None = None) -> Any:
        return super().select(timeout and timeout / PACE)


class _Loop(asyncio.SelectorEventLoop):
    """Its timers use its own clock; time.monotonic() stays as it is."""

    def time(self) -> float:
        return super().time() * PACE


def run_fast(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in such a loop → its result; no loop may run in this thread."""
    with asyncio.Runner(loop_factory=lambda: _Loop(_Selector())) as runner:
        return runner.run(coroutine)
