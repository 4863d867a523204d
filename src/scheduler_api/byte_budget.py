"""ByteBudget: a limit of bytes that several tasks share, in order of their requests."""

import asyncio
from collections import deque
from collections.abc import Callable


class ByteBudget:
    """A number of bytes that several tasks share.

    A request for more than the limit is granted when nothing else is held, so that it does not
    wait forever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes
        self.held = 0  # bytes
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()  # bytes, granted

    def try_acquire(self, size: int) -> bool:
        """Acquire this many bytes now; False if they are held or others wait for bytes."""
        if self._waiting or not self._fits(size):
            return False
        self.held += size
        return True

    def grow(self, held: int, more: int) -> bool:
        """Acquire `more` for a holder of `held` bytes; a sole holder may exceed the limit."""
        if held != self.held:
            return self.try_acquire(more)
        self.held += more  # nothing else is held: `acquire` would grant it too
        return True

    async def acquire(self, size: int, timeout: float | None = None) -> None:
        """Wait for this many bytes. Raises: TimeoutError after `timeout` seconds."""
        if self.try_acquire(size):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            async with asyncio.timeout(timeout):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.held -= size  # it was granted at the same time as the wait ended
            granted.cancel()
            self._grant()
            raise

    def release(self, size: int) -> None:
        """Release acquired bytes."""
        self.held -= size
        self._grant()

    def fail_waiting(self, error: Callable[[], Exception]) -> None:
        """Raise an error, a new one for each, in all tasks that wait."""
        while self._waiting:
            _, granted = self._waiting.popleft()
            if not granted.done():
                granted.set_exception(error())

    def _fits(self, size: int) -> bool:
        return not self.held or self.held + size <= self.limit

    def _grant(self) -> None:
        while self._waiting:
            size, granted = self._waiting[0]
            if not granted.done():
                if not self._fits(size):
                    return
                self.held += size
                granted.set_result(None)
            self._waiting.popleft()
