"""Ends requests that take too long, by one look at all of them; asked by the sender.

A timer for each, as aiohttp and asyncio.timeout have it, costs a fifth of what sending costs.
"""

import asyncio
import time
from types import TracebackType
from typing import Final

DEADLINE_TICK: Final = 0.05  # seconds between two checks while a request is open


class Deadlines:
    """The requests that are open, and until when each may be."""

    def __init__(self) -> None:
        self._open: set[Deadline] = set()
        self.looking = False  # whether a look is to come

    def at(self, at: float) -> "Deadline":
        """A context for the task that enters it, once or several times one after the other:
        TimeoutError if it is not left by `at`, in seconds of the monotonic clock."""
        return Deadline(self, at)

    def add(self, deadline: "Deadline") -> None:
        """Watch it."""
        self._open.add(deadline)
        if not self.looking:
            self._look_later()

    def discard(self, deadline: "Deadline") -> None:
        """Watch it no longer."""
        self._open.discard(deadline)

    def _look_later(self) -> None:
        # Only while something is open: an idle process sleeps.
        self.looking = bool(self._open)
        if self.looking:
            asyncio.get_running_loop().call_later(DEADLINE_TICK, self._look)

    def _look(self) -> None:
        now = time.monotonic()
        for deadline in [one for one in self._open if one.at <= now]:
            deadline.pass_()
        self._look_later()


class Deadline:
    """One request's, as asyncio.timeout is: a cancellation of its own becomes TimeoutError."""

    __slots__ = ("_cancelling", "_deadlines", "_passed", "_task", "at")

    _task: asyncio.Task[object]
    _cancelling: int  # cancellations of the task that were under way before
    _passed: bool

    def __init__(self, deadlines: Deadlines, at: float) -> None:
        """`at`: by the monotonic clock, seconds."""
        self._deadlines = deadlines
        self.at = at

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  only a task can be cancelled
        self._task, self._cancelling, self._passed = task, task.cancelling(), False
        self._deadlines.add(self)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._deadlines.discard(self)
        task = self._task
        del (
            self._task
        )  # it keeps its error, whose frames keep this: a circle with the request in it
        ours = self._passed and task.uncancel() <= self._cancelling
        if ours and isinstance(error, asyncio.CancelledError):
            raise TimeoutError from error

    def pass_(self) -> None:
        """The time is over."""
        self._deadlines.discard(self)
        self._passed = True
        self._task.cancel()
