"""The parent of several worker processes: starts them, replaces those that die, ends after them.

Only a signal ends it, or the refusal of its first start. Not uvicorn's Multiprocess: that one ends
the service, with exit code 0, when one worker cannot start, and leaves orphans when it is killed.
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

PAUSE_FIRST: Final = 0.1  # seconds before a worker that ended is replaced; doubles each time
PAUSE_LAST: Final = 10.0  # seconds, where that doubling ends; a worker that lived longer resets it
SILENCE: Final = 30.0  # seconds; a worker that is silent for two of them in a row is killed
HURRY_LIMIT: Final = 30.0  # seconds that a worker may take to end after HURRY


class WorkerRefused(SchedulerError):
    """A worker did not start."""

    code = "worker_refused"


class Workers:
    """All of them, as the parent sees them."""

    def __init__(
        self, count: int, start: Callable[[socket.socket], BaseProcess], ready: Callable[[], None]
    ) -> None:
        """`start`: starts a worker with its end of a channel; `ready`: called once, when one is."""
        self._count = count
        self._start = start
        self._ready = ready
        self._is_up = False  # whether any worker has ever been ready: no refusal ends us then
        self._stopping = asyncio.Event()
        self._living: set[Worker] = set()

    async def run(self) -> None:
        """Until `stop`. Raises SettingsError or WorkerRefused if the first start is refused."""
        slots = [asyncio.create_task(self._keep_one()) for _ in range(self._count)]
        await asyncio.wait(slots, return_when=asyncio.FIRST_EXCEPTION)
        self.stop()
        await asyncio.wait(slots)
        for slot in slots:
            slot.result()

    def stop(self) -> None:
        """Start no worker any more, and let each drain."""
        self._stopping.set()
        for worker in self._living:
            worker.say(worker_channel.STOP)

    def hurry(self) -> None:
        """Let none wait for what is open."""
        for worker in self._living:
            worker.hurry()

    async def _keep_one(self) -> None:
        pause = PAUSE_FIRST
        while not self._stopping.is_set():
            began = time.monotonic()
            reason = await self._run_one()
            if self._stopping.is_set():
                return
            pause = PAUSE_FIRST if time.monotonic() - began > PAUSE_LAST else pause
            log.error("worker_died", reason=reason, next_in_s=pause)
            await self._pause(pause)
            pause = min(2 * pause, PAUSE_LAST)

    async def _run_one(self) -> str:
        """From start to end → why it ended. Raises if it was refused before any was ready."""
        try:
            worker = await Worker.started(self._start)
        except OSError as error:  # no memory, no processes, no descriptors
            if self._is_up:
                return f"A worker cannot be started: {error}"
            raise WorkerRefused(f"A worker cannot be started: {error}") from error
        self._living.add(worker)
        if self._stopping.is_set():
            worker.say(worker_channel.STOP)
        try:
            await worker.ended(self._one_is_ready)
        finally:
            self._living.discard(worker)
        if worker.refused and not (self._is_up or self._stopping.is_set()):
            raise worker.refusal()
        return worker.reason

    def _one_is_ready(self) -> None:
        if not self._is_up:
            self._is_up = True
            self._ready()

    async def _pause(self, seconds: float) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopping], timeout=seconds)
        stopping.cancel()


class Worker:
    """One process, from its start to its end."""

    def __init__(self, process: BaseProcess, to_worker: Channel) -> None:
        self._process = process
        self._channel = to_worker
        self._refusal: type[SettingsError | WorkerRefused] = WorkerRefused
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
    def refused(self) -> bool:
        """Whether it ended by itself and in error; one that a signal ended is only dead."""
        return (self._process.exitcode or 0) > 0

    def refusal(self) -> Exception:
        """What it was refused with."""
        return self._refusal(self.reason)

    def say(self, word: str) -> None:
        """To the process."""
        self._channel.say(word)

    def hurry(self) -> None:
        """Let it not wait for what is open; one that does not end for all that is killed."""
        self.say(worker_channel.HURRY)
        asyncio.get_running_loop().call_later(HURRY_LIMIT, self._process.kill)

    async def ended(self, ready: Callable[[], None]) -> None:
        """Wait for the end; `ready` is called when it takes traffic."""
        while words := await self._heard():
            if words[0] == worker_channel.READY:
                ready()
            elif words[0] == worker_channel.REFUSED:
                self.reason = words[1]
            elif words[0] == worker_channel.WRONG_SETTINGS:
                self.reason, self._refusal = words[1], SettingsError
        self._channel.close()
        await _readable(self._process.sentinel)
        self._process.join()
        code = self._process.exitcode  # below 0: the signal that ended it
        self.reason = self.reason or f"worker {self._process.pid} ended with exit code {code}"

    async def _heard(self) -> list[str]:
        """The next words; none: it is gone. One that is silent for too long is killed."""
        hearing = asyncio.create_task(self._channel.next())
        # Twice: if it was this process that stood still, what was said meanwhile is heard now.
        for _ in range(2):
            if (await asyncio.wait([hearing], timeout=SILENCE))[0]:
                return await hearing
        self._process.kill()
        log.error("worker_silent", pid=self._process.pid)
        return await hearing


def _start_with_signals_blocked(
    start: Callable[[socket.socket], BaseProcess], channel_end: socket.socket
) -> BaseProcess:
    """So that one which comes before the worker can handle it waits for that (ending.py)."""
    resource_tracker.ensure_running()  # or the start does it, and unblocks the signals
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return start(channel_end)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


async def _readable(descriptor: int) -> None:
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
