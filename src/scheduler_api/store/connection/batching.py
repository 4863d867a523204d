"""Gathers single calls into one; asked by messages.py (create) and queue.py (settle)."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.store.connection.uploads import CALL_BYTES

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE: Final = 4  # calls under way; what comes meanwhile makes the next call larger


class Batcher(Generic[Item, Result]):
    """Runs `call` with the items of one loop turn, or of `delay` seconds.

    A call has at most `most` items, and CALL_BYTES unless a single item is larger.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]],
        *,
        delay: float = 0.0,
        most: int = 100,
    ) -> None:
        """`call` answers one result an item, in order."""
        self._call = call
        self._delay = delay
        self._most = most
        self._waiting: deque[tuple[Item, int, asyncio.Future[Result]]] = deque()
        self._bytes = 0  # of those that wait
        self._submitted = 0  # items so far
        self._timer: asyncio.Handle | None = None
        self._running: set[asyncio.Task[None]] = set()

    async def submit(self, item: Item, size: int = 0) -> Result:
        """The item's own result; an error of the call is everybody's. `size`: its bytes."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, size, future))
        self._bytes += size
        self._submitted += 1
        del item  # held by whoever calls the store, and by nobody else
        if len(self._waiting) >= self._most or self._bytes >= CALL_BYTES:
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
        while self._waiting and len(self._running) < AT_ONCE:
            # A task of its own: a caller that is cancelled leaves the others' call alone.
            task = asyncio.ensure_future(self._run(self._next_batch(), self._submitted))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _next_batch(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        if len(self._waiting) <= self._most and self._bytes <= CALL_BYTES:  # as it mostly is
            all_of_them = [(item, future) for item, _, future in self._waiting]
            self._waiting.clear()
            self._bytes = 0
            return all_of_them
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        total = 0
        while self._waiting and len(batch) < self._most:
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
        """`submitted`: how many items there had been when the call was made."""
        try:
            results = await self._call([item for item, _ in batch])
        except Exception as error:  # handed to everybody who waits
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
        """Refuse those that have waited for all of a failed call: nothing of them was sent.

        Each call would wait for the same store, the last one for hours.
        """
        while len(self._waiting) > self._submitted - submitted:
            _, size, future = self._waiting.popleft()
            self._bytes -= size
            _fail([future], StoreUnavailable())


def _fail(futures: Iterable[asyncio.Future[Result]], error: Exception) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)
