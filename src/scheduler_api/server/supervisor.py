"""The parent process of several workers: starts them, replaces those that end, stops after them.

It ends only on a shutdown request, or when its first worker cannot start. uvicorn's Multiprocess
was rejected: it ends the service with exit code 0 when one worker cannot start (its pull request
2987 was closed), and leaves orphans when it is killed.
"""

import asyncio
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from typing import Final

import structlog

from scheduler_api.domain.errors import SchedulerError
from scheduler_api.server import worker_channel
from scheduler_api.server.shutdown import SIGNALS
from scheduler_api.server.worker_channel import Channel
from scheduler_api.settings import SettingsError

log = structlog.get_logger()

# Seconds before a worker that ended is replaced. The delay doubles each time, and starts again
# from the minimum after a worker that lived longer than the maximum.
MIN_RESTART_DELAY: Final = 0.1
MAX_RESTART_DELAY: Final = 10.0
HEARTBEAT_TIMEOUT: Final = 30.0  # seconds; a worker silent for two of them in a row is killed
FORCE_STOP_TIMEOUT: Final = 30.0  # seconds from FORCE_STOP until a worker is killed


class WorkerStartFailed(SchedulerError):
    """A worker did not start."""

    code = "worker_start_failed"


class Workers:
    """All worker processes."""

    def __init__(
        self, count: int, start: Callable[[socket.socket], BaseProcess], ready: Callable[[], None]
    ) -> None:
        """`start`: starts a worker, which gets that end of a channel.

        `ready`: called once, when the first worker accepts requests.
        """
        self._count = count
        self._start = start
        self._ready = ready
        self._was_ready = False  # whether a worker was ever ready; then no failed start ends us
        self._stopping = asyncio.Event()
        self._living: set[Worker] = set()

    async def run(self) -> None:
        """Run until `stop`. Raises: SettingsError or WorkerStartFailed, if no worker can start."""
        slots = [asyncio.create_task(self._keep_one()) for _ in range(self._count)]
        await asyncio.wait(slots, return_when=asyncio.FIRST_EXCEPTION)
        self.stop()
        await asyncio.wait(slots)
        for slot in slots:
            slot.result()

    def stop(self) -> None:
        """Start no more workers, and let each living one drain and exit."""
        self._stopping.set()
        for worker in self._living:
            worker.send(worker_channel.STOP)

    def force_stop(self) -> None:
        """Let no worker wait for open requests."""
        for worker in self._living:
            worker.force_stop()

    async def _keep_one(self) -> None:
        delay = MIN_RESTART_DELAY
        while not self._stopping.is_set():
            started_at = time.monotonic()
            reason = await self._run_one()
            if self._stopping.is_set():
                return
            if time.monotonic() - started_at > MAX_RESTART_DELAY:
                delay = MIN_RESTART_DELAY
            log.error("worker_died", reason=reason, next_in_s=delay)
            await self._sleep(delay)
            delay = min(2 * delay, MAX_RESTART_DELAY)

    async def _run_one(self) -> str:
        """Run a worker until it ends → why it ended. Raises if the first one cannot start."""
        try:
            worker = await Worker.started(self._start)
        except OSError as error:  # out of memory, processes or file descriptors
            if self._was_ready:
                return f"A worker cannot be started: {error}"
            raise WorkerStartFailed(f"A worker cannot be started: {error}") from error
        self._living.add(worker)
        if self._stopping.is_set():
            worker.send(worker_channel.STOP)
        try:
            await worker.wait(self._on_ready)
        finally:
            self._living.discard(worker)
        if worker.failed and not (self._was_ready or self._stopping.is_set()):
            raise worker.error()
        return worker.reason

    def _on_ready(self) -> None:
        if not self._was_ready:
            self._was_ready = True
            self._ready()

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not longer than until `stop`."""
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping], timeout=seconds)
        stopping.cancel()


class Worker:
    """One worker process, from its start to its end."""

    def __init__(self, process: BaseProcess, channel: Channel) -> None:
        self._process = process
        self._channel = channel
        self._error: type[SettingsError | WorkerStartFailed] = WorkerStartFailed
        self.reason = ""  # why it ended

    @classmethod
    async def started(cls, start: Callable[[socket.socket], BaseProcess]) -> "Worker":
        """Raises: OSError."""
        ours, its = socket.socketpair()
        with its:
            try:
                process = _start_with_signals_blocked(start, its)
            except BaseException:
                ours.close()
                raise
        return cls(process, await Channel.over(ours))

    @property
    def failed(self) -> bool:
        """Whether it exited with an error; False if a signal ended it."""
        return (self._process.exitcode or 0) > 0

    def error(self) -> Exception:
        """Why it failed, as an exception."""
        return self._error(self.reason)

    def send(self, word: str) -> None:
        """Send a word to the process."""
        self._channel.send(word)

    def force_stop(self) -> None:
        """Let it not wait for open requests; kill it if it does not end nevertheless."""
        self.send(worker_channel.FORCE_STOP)
        asyncio.get_running_loop().call_later(FORCE_STOP_TIMEOUT, self._process.kill)

    async def wait(self, ready: Callable[[], None]) -> None:
        """Wait until it ends; `ready` is called when it accepts requests."""
        while words := await self._receive():
            if words[0] == worker_channel.READY:
                ready()
            elif words[0] == worker_channel.START_REFUSED:
                self.reason = words[1]
            elif words[0] == worker_channel.WRONG_SETTINGS:
                self.reason, self._error = words[1], SettingsError
        self._channel.close()
        await _readable(self._process.sentinel)
        self._process.join()
        code = self._process.exitcode  # below 0: the signal that ended it
        self.reason = self.reason or f"worker {self._process.pid} ended with exit code {code}"

    async def _receive(self) -> list[str]:
        """The next message; an empty list if it is gone. A silent worker is killed."""
        receiving = asyncio.create_task(self._channel.receive())
        # Twice: if this process was suspended, heartbeats that came meanwhile are read now.
        for _ in range(2):
            if (await asyncio.wait([receiving], timeout=HEARTBEAT_TIMEOUT))[0]:
                return await receiving
        self._process.kill()
        log.error("worker_timed_out", pid=self._process.pid)
        return await receiving


def _start_with_signals_blocked(
    start: Callable[[socket.socket], BaseProcess], channel_end: socket.socket
) -> BaseProcess:
    """Start it so that a signal before its handlers are set stays pending (shutdown.py)."""
    resource_tracker.ensure_running()  # else `start` does it, and unblocks the signals
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return start(channel_end)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


async def _readable(descriptor: int) -> None:
    """Wait until the file descriptor is readable."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
