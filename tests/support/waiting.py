"""Waits for a condition instead of sleeping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

PAUSE = 0.01  # seconds between two checks


async def wait_until(
    what: str, condition: Callable[[], bool | Awaitable[bool]], timeout: float = 10.0
) -> None:
    """Wait until `condition` holds; after `timeout` seconds fail with `what` was awaited."""
    deadline = time.monotonic() + timeout
    while not await _holds(condition):
        if time.monotonic() > deadline:
            raise AssertionError(f"not seen within {timeout} s: {what}")
        await asyncio.sleep(PAUSE)


async def _holds(condition: Callable[[], bool | Awaitable[bool]]) -> bool:
    found = condition()
    return await found if inspect.isawaitable(found) else found
