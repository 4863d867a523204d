"""A timer that fires at an instant, precise to 0.1 ms where the system has timerfd.

The timers of event loops are rounded to whole milliseconds: uvloop's by libuv, whose clock is read
once a turn (MagicStack/uvloop#359), so that they fire up to 1 ms late; asyncio's by epoll.

timerfd is called by ctypes, as `os.timerfd_create` came with Python 3.13: use that when 3.13 is the
oldest version supported.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Final

_MONOTONIC: Final = 1  # CLOCK_MONOTONIC, the clock of time.monotonic()
_RELATIVE: Final = 0  # not TFD_TIMER_ABSTIME, which libfaketime takes for the time of day
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_LIBC: Final = ctypes.CDLL(None)
_COUNT_BYTES: Final = 8  # of the counter that must be read after each expiry


class _TimerSpec(ctypes.Structure):
    """struct itimerspec: a period, which is not used, and the time until the timer fires."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "in_s", "in_ns"))


class Timer:
    """One instant at a time, which can be set again; needs a running loop; must be closed."""

    def __init__(self, callback: Callable[[], Any]) -> None:
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._descriptor = _create_timerfd()
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._fire)

    def set(self, at: float) -> None:
        """Fire at `at`, in monotonic seconds, instead of what was set; at once if it is past."""
        if self._descriptor is None:
            self.clear()
            delay = at - time.monotonic()
            self._handle = self._loop.call_later(max(0.0, delay), self._callback)
        else:
            _set_timerfd(self._descriptor, max(1, int((at - time.monotonic()) * 1e9)))

    def clear(self) -> None:
        """Do not fire."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor is not None:
            _set_timerfd(self._descriptor, 0)

    def close(self) -> None:
        """Never fire again."""
        self.clear()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _fire(self) -> None:
        assert self._descriptor is not None  # noqa: S101
        os.read(self._descriptor, _COUNT_BYTES)
        self._callback()


def _create_timerfd() -> int | None:
    """None if the system has no timerfd, or no descriptor is left."""
    if not hasattr(_LIBC, "timerfd_create"):
        return None
    descriptor = int(_LIBC.timerfd_create(_MONOTONIC, _FLAGS))
    return descriptor if descriptor >= 0 else None


def _set_timerfd(descriptor: int, in_ns: int) -> None:
    """`in_ns`: nanoseconds until it fires; 0: never."""
    seconds, rest = divmod(in_ns, 1_000_000_000)
    spec = _TimerSpec(0, 0, seconds, rest)
    _LIBC.timerfd_settime(descriptor, _RELATIVE, ctypes.byref(spec), None)
