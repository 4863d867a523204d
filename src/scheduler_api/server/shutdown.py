"""How a process is asked to end: by signals, and by whoever else calls `stop` and `hurry`."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

log = structlog.get_logger()

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


def _nothing() -> None:
    """What an ending does before anybody is in charge."""


class Ending:
    """The first request to end stops, a second signal hurries; the phase says what that means."""

    def __init__(self) -> None:
        self.asked = False
        self._signals = 0  # received so far; a request of another process is not counted
        self._stop: Callable[[], object] = _nothing
        self._hurry: Callable[[], object] = _nothing

    def means(self, stop: Callable[[], object], hurry: Callable[[], object] = _nothing) -> None:
        """From now on; an end that was asked for before happens at once."""
        self._stop, self._hurry = stop, hurry
        if self.asked:
            stop()

    def stop(self) -> None:
        """Ask once; a repetition does nothing."""
        if not self.asked:
            self.asked = True
            self._stop()

    def hurry(self) -> None:
        """Do not wait for what is open."""
        self.stop()
        self._hurry()

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Within, signals ask; after it, a signal ends the process at once, with exit code 0.

        A parent blocks the signals while it starts a worker: one that came since is handled here.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._signalled, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                if self.asked:
                    signal.signal(number, _end_at_once)

    def _signalled(self, number: int) -> None:
        self._signals += 1
        at_once = self._signals > 1
        if at_once:
            self.hurry()
        else:
            self.stop()
        log.info("stopping", signal=signal.Signals(number).name, at_once=at_once)


def _end_at_once(_: int, __: FrameType | None) -> None:
    # All that must happen has happened: the interpreter only waits for its threads.
    os._exit(0)
