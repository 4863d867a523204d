"""An event loop without a wait: its clock jumps to the next timer.

The callbacks of a simulated process run in that process's context. So a process can be paused, as
by SIGSTOP, or killed: its callbacks are then held back, or dropped.
"""

import asyncio
import heapq
import random
import secrets
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, ContextVar, copy_context
from typing import TYPE_CHECKING, Any, Final, cast

from scheduler_api.delivery import claimer, timer

if TYPE_CHECKING:
    from types import ModuleType

BEGIN: Final = 1_000.0  # monotonic seconds at which every loop begins


class Process:
    """What the loop knows of a simulated process."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self.loop = loop
        self.dead = False
        self.paused_until = 0.0  # monotonic seconds
        self.context = copy_context()
        self.context.run(_PROCESS.set, self)
        self._held: deque[asyncio.Handle] = deque()

    @property
    def paused(self) -> bool:
        """Whether it is stopped by a signal."""
        return self.loop.time() < self.paused_until

    @property
    def acts(self) -> bool:
        """Whether its code runs."""
        return not self.dead and not self.paused

    def create_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this process."""
        return self.loop.create_task(coroutine, context=self.context)

    def pause(self, seconds: float) -> None:
        """Run nothing of it for so long."""
        self.paused_until = self.loop.time() + seconds
        self.loop.call_at(self.paused_until, self._resume)

    def _resume(self) -> None:
        if not self.paused:
            self.loop.run_again(self._held)
            self._held.clear()

    def hold(self, handle: asyncio.Handle) -> None:
        """Run it when the pause is over."""
        self._held.append(handle)


_PROCESS: Final[ContextVar[Process | None]] = ContextVar("process", default=None)


class VirtualLoop(asyncio.BaseEventLoop):
    """Runs what is ready; when nothing is, its clock jumps."""

    # Attributes of asyncio's own loop that mypy does not know.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]

    def __init__(self) -> None:
        super().__init__()
        self._now = BEGIN
        self._dropped: list[asyncio.Handle] = []  # of dead processes
        # Tasks of dead processes are dropped as they are.
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        """Virtual monotonic seconds."""
        return self._now

    def abandon(self) -> None:
        """End the world: no task of it runs again."""
        asyncio._set_running_loop(self)  # as a coroutine that is closed may create a task
        closed = set[asyncio.Task[Any]]()
        while tasks := asyncio.all_tasks(self) - closed:
            for task in tasks:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                with suppress(RuntimeError):  # a coroutine that waits while it is closed
                    cast("Coroutine[Any, Any, Any]", task.get_coro()).close()
            closed |= tasks
        asyncio._set_running_loop(None)
        self._ready.clear()
        self._dropped.clear()
        self._scheduled.clear()
        self.close()

    def run_again(self, handles: Iterator[asyncio.Handle] | deque[asyncio.Handle]) -> None:
        """Put callbacks back that were held."""
        self._ready.extend(handles)

    def _process_events(self, _: Any) -> None:
        """There are no sockets."""

    def _write_to_self(self) -> None:
        """There are no threads."""

    def _run_once(self) -> None:
        if not self._ready:
            self._jump()
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            if not handle.cancelled():
                self._run(handle)

    def _jump(self) -> None:
        scheduled = self._scheduled
        if not scheduled:
            raise AssertionError("nothing is ready and no timer is set: the world is stuck")
        self._now = max(self._now, scheduled[0].when())
        while scheduled and scheduled[0].when() <= self._now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # type: ignore[attr-defined]
            if not handle.cancelled():
                self._ready.append(handle)

    def _run(self, handle: asyncio.Handle) -> None:
        context = cast("Context", handle._context)  # type: ignore[attr-defined]
        process = context.get(_PROCESS)
        if process is None or process.acts:
            handle._run()
        elif process.dead:
            self._dropped.append(handle)
        else:
            process.hold(handle)


class _Time:
    """Replaces in a module of the product the imported `time`."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.monotonic = monotonic

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the dispatcher uses time.{name}, which is not virtual")


class _Secrets:
    """Replaces in a module of the product the imported `secrets`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def token_hex(self, size: int) -> str:
        """So that a seed always gives the same nonces."""
        return self._rng.randbytes(size).hex()


PRODUCT: Final = ("scheduler_api.delivery.", "scheduler_api.store.")


@contextmanager
def virtual(loop: VirtualLoop, rng: random.Random, ahead: float) -> Iterator[None]:
    """Within, the dispatcher's modules see the loop's clock and the seed's random numbers.

    `ahead`: seconds; more than the dispatcher's own, so that more messages wait for their instant.
    """
    stand_ins: list[tuple[ModuleType, Any]] = [
        (time, _Time(loop.time)),
        (random, rng),
        (secrets, _Secrets(rng)),
    ]
    replaced: list[tuple[Any, str, Any]] = []

    def replace(module: Any, name: str, stand_in: Any) -> None:
        replaced.append((module, name, getattr(module, name)))
        setattr(module, name, stand_in)

    replace(timer, "_create_timerfd", lambda: None)  # so that a Timer sets one of the loop
    replace(claimer, "AHEAD", ahead)
    for module in [it for name, it in sys.modules.items() if name.startswith(PRODUCT)]:
        for real, stand_in in stand_ins:
            if getattr(module, real.__name__, None) is real:
                replace(module, real.__name__, stand_in)
    try:
        yield
    finally:
        for module, name, real in replaced:
            setattr(module, name, real)
