"""Ends requests that take too long, by one timer for all of them.

One timer for each request, as in aiohttp and asyncio.timeout, would cost a fifth of sending.
"""

import asyncio
import time
from types import TracebackType
from typing import Final

DEADLINE_TICK: Final = 0.05  # seconds between two checks: how late a request may end


class Deadlines:
    """The open requests, and how long each may take."""

    def __init__(self) -> None:
        self._open: set[Deadline] = set()
        self.ticking = False  # whether a check is scheduled

    def at(self, at: float) -> "Deadline":
        """A context that raises TimeoutError if it is not left by `at`, in monotonic seconds.

        A task may enter it several times, one after the other.
        """
        return Deadline(self, at)

    def add(self, deadline: "Deadline") -> None:
        """Start checking it."""
        self._open.add(deadline)
        if not self.ticking:
            self._schedule()

    def discard(self, deadline: "Deadline") -> None:
        """Stop checking it."""
        self._open.discard(deadline)

    def _schedule(self) -> None:
        # Only while a request is open, so that an idle process sleeps.
        self.ticking = bool(self._open)
        if self.ticking:
            asyncio.get_running_loop().call_later(DEADLINE_TICK, self._check)

    def _check(self) -> None:
        now = time.monotonic()
        for deadline in [one for one in self._open if one.at <= now]:
            deadline.expire()
        self._schedule()


class Deadline:
    """The deadline of one request: its own cancellation becomes TimeoutError."""

    __slots__ = ("_cancelling", "_deadlines", "_expired", "_task", "at")

    _task: asyncio.Task[object]
    _cancelling: int  # cancellations of the task that were pending before
    _expired: bool

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        """`at`: monotonic seconds."""
        self._deadlines = deadlines
        self.at = at

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  only a task can be cancelled
        self._task, self._cancelling, self._expired = task, task.cancelling(), False
        self._deadlines.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deadlines.discard(self)
        task = self._task
        # The task keeps its error, the error its frames, and these keep `self`: without this line,
        # a cycle would keep the request until the garbage collector runs.
        del self._task
        ours = self._expired and task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def expire(self) -> None:
        """Cancel the task."""
        self._deadlines.discard(self)
        self._expired = True
        self._task.cancel()
