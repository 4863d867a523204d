"""Batches single calls into one, so that many callers share few round trips to the store."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar, cast

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.uploads import CALL_BYTES

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH_CALLS: Final = 4  # open calls; further items wait and make the next call larger


class Batcher(Generic[Item, Result]):
    """Runs `call` with the items of one turn of the event loop, or of `delay` seconds.

    A call has at most `max_items` items and CALL_BYTES; a single item may be larger.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        delay: float = 0.0,
        max_items: int = 100,
    ) -> None:
        """`call` returns one result per item, in the same order."""
        self._call = call
        self._delay = delay
        self._max_items = max_items
        self._waiting: deque[tuple[Item, int, asyncio.Future[Result]]] = deque()
        self._bytes = 0  # of the waiting items
        self._submitted = 0  # items since the start
        self._timer: asyncio.Handle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item, size: int = 0) -> Result:
        """The result for the item. Raises: the error of its call. `size`: bytes of the item."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, size, future))
        self._bytes += size
        self._submitted += 1
        del item  # only the call holds it, so that it is freed after the call
        if len(self._waiting) >= self._max_items or self._bytes >= CALL_BYTES:
            self._flush()
        elif self._timer is None:
            self._timer = loop.call_later(self._delay, self._flush)
        try:
            return await future
        finally:
            del future  # else an error would hold this frame, and this frame the error

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting and len(self._running) < MAX_BATCH_CALLS:
            # A separate task, so that a cancelled caller does not cancel the call of others.
            task = asyncio.ensure_future(self._run(self._next_batch(), self._submitted))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        if len(self._waiting) <= self._max_items and self._bytes <= CALL_BYTES:  # the usual case
            everything = [(item, future) for item, _, future in self._waiting]
            self._waiting.clear()
            self._bytes = 0
            return everything
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        total = 0
        while self._waiting and len(batch) < self._max_items:
            item, size, future = self._waiting[0]
            total += size
            if batch and total > CALL_BYTES:
                break
            self._waiting.popleft()
            self._bytes -= size
            batch.append((item, future))
        return batch

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._flush()

    async def _run(self, batch: list[tuple[Item, asyncio.Future[Result]]], submitted: int) -> None:
        """`submitted`: number of items submitted before the call started."""
        try:
            results = await self._call([item for item, _ in batch])
        except Exception as error:  # passed to every caller of the batch
            _fail((future for _, future in batch), error)
            if isinstance(error, StoreUnavailable):
                self._refuse(submitted)
        else:
            for (_, future), result in zip(batch, results, strict=True):
                if not future.done():
                    future.set_result(result)
        finally:
            batch.clear()  # else an error would hold this frame, and this frame the error

    def _refuse(self, submitted: int) -> None:
        """Refuse the items that waited during the whole failed call; none of them was sent.

        Otherwise each call would wait for the same timeout, one after the other.
        """
        while len(self._waiting) > self._submitted - submitted:
            _, size, future = self._waiting.popleft()
            self._bytes -= size
            _fail([future], StoreUnavailable())


async def all_results(calls: Iterable[Awaitable[Result]]) -> list[Result]:
    """The results of calls that run together. Raises: the first error, once all calls have ended.

    `gather` alone raises at once, and leaves the other calls running with their connections.
    """
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return cast("list[Result]", results)


def _fail(futures: Iterable[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
