"""Tasks that repeat one step until they are cancelled, also after a step that failed."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

import structlog

from scheduler_api.domain.errors import Unavailable

log = structlog.get_logger()


async def repeat(
    step: Callable[[], Awaitable[None]],
    interval: float,
    first: float | None = None,
    retry: float | None = None,
) -> None:
    """Run the step every `interval` seconds, with jitter, until cancelled.

    `first`: seconds before the first run; `retry`: seconds before the next run after the store was
    away. Default of both: `interval`.
    """
    wait = interval if first is None else first
    while True:
        await asyncio.sleep(wait * random.uniform(0.9, 1.0))  # noqa: S311
        wait = interval
        try:
            await step()
        except Unavailable as error:
            log.debug("upkeep_postponed", reason=str(error))
            wait = interval if retry is None else retry
        except Exception:  # a bug in one step must not end the renewal of leases
            log.exception("upkeep_error")


async def cancel_all(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel the tasks until all have ended.

    More than once: asyncio.wait_for of Python 3.11, which redis-py calls, can lose a cancellation
    (python/cpython#86296, fixed in 3.12). Once is enough when 3.12 is the oldest version supported.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
