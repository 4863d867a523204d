"""The parent of several workers, with real processes of a chosen behaviour."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import chain, repeat
from multiprocessing.process import BaseProcess

import pytest
from structlog.testing import capture_logs

from scheduler_api.server import supervisor
from scheduler_api.server.supervisor import Workers, WorkerStartFailed
from scheduler_api.settings import SettingsError
from tests.server import fake_workers
from tests.server.fake_workers import Behaviour
from tests.support.waiting import wait_until


class Parent:
    """A parent whose workers have these behaviours, in order; the last one repeats."""

    def __init__(self, count: int, *behaviours: Behaviour) -> None:
        self.started: list[BaseProcess] = []
        self.ready = 0
        self._next = chain(behaviours[:-1], repeat(behaviours[-1]))
        self.workers = Workers(count, self._start, self._on_ready)

    def _start(self, end: socket.socket) -> BaseProcess:
        self.started.append(fake_workers.started(next(self._next), end))
        return self.started[-1]

    def _on_ready(self) -> None:
        self.ready += 1

    async def number(self, count: int) -> None:
        """Wait until so many workers have been started."""
        await wait_until(f"{count} starts", lambda: len(self.started) >= count)


@asynccontextmanager
async def running(parent: Parent) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.create_task(parent.workers.run())
    try:
        yield task
    finally:
        parent.workers.stop()
        for process in parent.started:
            process.kill()
        await asyncio.wait([task])


def kill(process: BaseProcess, number: signal.Signals = signal.SIGKILL) -> None:
    assert process.pid
    os.kill(process.pid, number)


async def test_stop_ends_all_workers_and_ready_is_called_once() -> None:
    parent = Parent(2, fake_workers.obedient)
    async with running(parent) as task:
        await wait_until("ready", lambda: parent.ready > 0)
        await parent.number(2)
        parent.workers.stop()
        await task
    assert [process.exitcode for process in parent.started] == [0, 0]
    assert parent.ready == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_run_replaces_a_worker_that_a_signal_ended(number: signal.Signals) -> None:
    parent = Parent(2, fake_workers.obedient)
    async with running(parent) as task:
        await parent.number(2)
        await wait_until("ready", lambda: parent.ready == 1)
        with capture_logs() as logs:
            kill(parent.started[0], number)
            await parent.number(3)
        assert not task.done()
    (died,) = (one for one in logs if one["event"] == "worker_died")
    assert died["reason"].endswith(f"ended with exit code {-number}")


@pytest.mark.parametrize(
    "behaviour", [fake_workers.refused, fake_workers.crashed, fake_workers.killed]
)
async def test_run_retries_a_worker_that_does_not_start_with_growing_delays(
    behaviour: Behaviour,
) -> None:
    parent = Parent(1, fake_workers.obedient, *[behaviour] * 3, fake_workers.obedient)
    with capture_logs() as logs:
        async with running(parent) as task:
            await wait_until("ready", lambda: parent.ready == 1)
            kill(parent.started[0])
            await parent.number(5)
            assert not task.done()
    pauses = [one["next_in_s"] for one in logs if one["event"] == "worker_died"]
    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_run_resets_the_delay_after_a_worker_that_lived_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "MAX_RESTART_DELAY", 0.0)
    parent = Parent(1, fake_workers.killed, fake_workers.killed, fake_workers.obedient)
    with capture_logs() as logs:
        async with running(parent):
            await wait_until("ready", lambda: parent.ready == 1)
    assert [one["next_in_s"] for one in logs if one["event"] == "worker_died"] == [0.1, 0.1]


@pytest.mark.parametrize("behaviour", [fake_workers.killed, fake_workers.cut_off])
async def test_run_replaces_a_worker_that_is_killed_during_the_first_start(
    behaviour: Behaviour,
) -> None:
    parent = Parent(1, behaviour, fake_workers.obedient)
    async with running(parent):
        await wait_until("ready", lambda: parent.ready == 1)


@pytest.mark.parametrize(
    ("behaviour", "error", "text"),
    [
        (fake_workers.refused, WorkerStartFailed, "the data are of a newer version"),
        (fake_workers.wrong_settings, SettingsError, "set API_TOKEN"),
        (fake_workers.crashed, WorkerStartFailed, "ended with exit code 3"),
    ],
)
async def test_run_raises_the_reason_if_the_first_start_fails(
    behaviour: Behaviour, error: type[Exception], text: str
) -> None:
    parent = Parent(2, behaviour)
    with pytest.raises(error, match=text):
        await parent.workers.run()
    assert all(process.exitcode is not None for process in parent.started)
    assert parent.ready == 0


async def test_run_raises_if_no_process_can_be_created_at_first_and_retries_later() -> None:
    parent = Parent(1, fake_workers.obedient)

    def no_process(_: socket.socket) -> BaseProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(WorkerStartFailed, match="cannot be started"):
        await Workers(1, no_process, lambda: None).run()
    start, parent.workers._start = parent.workers._start, no_process
    parent.workers._was_ready = True
    with capture_logs() as logs:
        async with running(parent):
            await wait_until("two attempts", lambda: len(logs) == 2)
            parent.workers._start = start
            await parent.number(1)
    assert {one["event"] for one in logs} == {"worker_died"}


async def test_run_kills_and_replaces_a_worker_without_heartbeats(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "HEARTBEAT_TIMEOUT", 0.1)
    parent = Parent(1, fake_workers.stubborn)
    with capture_logs() as logs:
        async with running(parent):
            await wait_until(
                "the timeout", lambda: "worker_timed_out" in [one["event"] for one in logs]
            )
            await parent.number(2)
    assert parent.started[0].exitcode == -signal.SIGKILL


async def test_force_stop_kills_a_worker_that_does_not_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FORCE_STOP_TIMEOUT", 0.1)
    parent = Parent(1, fake_workers.stubborn)
    async with running(parent) as task:
        await wait_until("ready", lambda: parent.ready == 1)
        parent.workers.stop()
        parent.workers.force_stop()
        await task
    assert parent.started[0].exitcode == -signal.SIGKILL


async def test_stop_reaches_a_worker_that_is_still_starting() -> None:
    parent = Parent(1, fake_workers.obedient)
    async with running(parent) as task:
        await parent.number(1)
        parent.workers.stop()
        await task
    assert parent.started[0].exitcode == 0
    assert len(parent.started) == 1


async def test_stop_ends_the_delay_of_a_restart() -> None:
    parent = Parent(1, fake_workers.killed)
    with capture_logs() as logs:
        async with running(parent) as task:
            await wait_until("a delay", lambda: len(logs) == 1)
            parent.workers.stop()
            await task
    assert len(parent.started) == 1
