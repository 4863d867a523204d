"""Rings at an instant: where the system has timerfd, to a tenth of a millisecond.

A loop's own timers are rounded: uvloop's to whole milliseconds of a clock that it reads once a
turn, so that they ring up to one too late; asyncio's to whole milliseconds of epoll. The system's
call is in Python's own library from 3.13 on.
"""

import asyncio
import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Final

_MONOTONIC: Final = 1  # CLOCK_MONOTONIC, which time.monotonic() shows
_FROM_NOW: Final = 0  # not TFD_TIMER_ABSTIME, which libfaketime takes for the time of day
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_LIBC: Final = ctypes.CDLL(None)
_TICKS: Final = 8  # bytes that a ring leaves to be read


class _Times(ctypes.Structure):
    """struct itimerspec: a period, of which we have none, and the time until it rings."""

    _fields_ = tuple((name, ctypes.c_long) for name in ("every_s", "every_ns", "in_s", "in_ns"))


class Timer:
    """One instant at a time, set again and again; within a running loop, until closed."""

    def __init__(self, ring: Callable[[], Any]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.Handle | None = None
        self._descriptor = _descriptor()
        if self._descriptor is not None:
            self._loop.add_reader(self._descriptor, self._rang)

    def set(self, at: float) -> None:
        """Ring at that instant of time.monotonic(), seconds, and at no other; at once if past."""
        if self._descriptor is None:
            self.clear()
            delay = at - time.monotonic()
            self._handle = self._loop.call_later(max(0.0, delay), self._ring)
        else:
            _arm(self._descriptor, max(1, int((at - time.monotonic()) * 1e9)))

    def clear(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor is not None:
            _arm(self._descriptor, 0)

    def close(self) -> None:
        """Never ring again."""
        self.clear()
        if self._descriptor is not None:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)

    def _rang(self) -> None:
        assert self._descriptor is not None  # noqa: S101
        os.read(self._descriptor, _TICKS)
        self._ring()


def _descriptor() -> int | None:
    """None where the system has no such thing, or no descriptor is left."""
    if not hasattr(_LIBC, "timerfd_create"):
        return None
    made = int(_LIBC.timerfd_create(_MONOTONIC, _FLAGS))
    return made if made >= 0 else None


def _arm(descriptor: int, in_ns: int) -> None:
    """0 disarms."""
    seconds, rest = divmod(in_ns, 1_000_000_000)
    times = _Times(0, 0, seconds, rest)
    _LIBC.timerfd_settime(descriptor, _FROM_NOW, ctypes.byref(times), None)
