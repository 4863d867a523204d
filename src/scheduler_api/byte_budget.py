"""Budgets of bytes: what may be held at once, given out in the order of asking."""

import asyncio
from collections import deque
from collections.abc import Callable


class Budget:
    """A number of bytes that several tasks share.

    A wish for more than all of them is granted once nothing else is held, so that it waits but
    does not wait for ever.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def take_now(self, size: int) -> bool:
        """Take so many bytes, unless they are held or others wait for them."""
        if self._waiting or not self._fits(size):
            return False
        self.held += size
        return True

    def grow(self, held: int, more: int) -> bool:
        """Take `more` beside the `held` bytes of one holder, who may have all of them and more."""
        if held != self.held:
            return self.take_now(more)
        self.held += more  # nothing else is held: as `take` grants it
        return True

    async def take(self, size: int, within: float | None = None) -> None:
        """Wait for so many bytes. Raises: TimeoutError after `within` seconds; see `refuse`."""
        if self.take_now(size):
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, granted))
        try:
            async with asyncio.timeout(within):
                await granted
        except BaseException:
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self.held -= size  # it came together with the end of the wait
            granted.cancel()
            self._grant()
            raise

    def give(self, size: int) -> None:
        """Give back what was taken."""
        self.held -= size
        self._grant()

    def refuse(self, error: Callable[[], Exception]) -> None:
        """End the wait of all who wait, with an error for each."""
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
