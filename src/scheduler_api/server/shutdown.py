"""The shutdown of a process: requested by a signal or by a call of `stop` or `force_stop`."""

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


def _do_nothing() -> None:
    """The default action, until `set_actions`."""


class Shutdown:
    """Runs a stop action on the first request, and a force-stop action on a second signal."""

    def __init__(self) -> None:
        self.requested = False
        self._signals = 0  # received so far; requests by a call do not count
        self._stop: Callable[[], object] = _do_nothing
        self._force_stop: Callable[[], object] = _do_nothing

    def set_actions(
        self, stop: Callable[[], object], force_stop: Callable[[], object] = _do_nothing
    ) -> None:
        """Replace the actions; `stop` runs at once if a shutdown was requested before."""
        self._stop, self._force_stop = stop, force_stop
        if self.requested:
            stop()

    def stop(self) -> None:
        """Request a graceful shutdown; a second call does nothing."""
        if not self.requested:
            self.requested = True
            self._stop()

    def force_stop(self) -> None:
        """Request a shutdown that does not wait for open requests."""
        self.stop()
        self._force_stop()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM request the shutdown.

        After the block of a shutdown, a further signal ends the process at once with exit code 0.
        A parent blocks the signals while it starts a worker; they are unblocked here, so that one
        which came meanwhile is handled.
        """
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)
                if self.requested:
                    signal.signal(number, _exit_at_once)

    def _on_signal(self, number: int) -> None:
        self._signals += 1
        forced = self._signals > 1
        if forced:
            self.force_stop()
        else:
            self.stop()
        log.info("shutdown_requested", signal=signal.Signals(number).name, forced=forced)


def _exit_at_once(_: int, __: FrameType | None) -> None:
    # The shutdown is complete: the interpreter only waits for its threads.
    os._exit(0)
