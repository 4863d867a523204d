"""The parent of several workers, with real processes that behave as a test wants."""

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
from tests.server import small
from tests.server.small import Behaviour
from tests.support.waiting import wait_until


class Parent:
    """A parent whose workers behave, one after the other, as is said; the last one goes on so."""

    def __init__(self, count: int, *behaviours: Behaviour) -> None:
        self.started: list[BaseProcess] = []
        self.ready = 0
        self._next = chain(behaviours[:-1], repeat(behaviours[-1]))
        self.workers = Workers(count, self._start, self._one_is_ready)

    def _start(self, end: socket.socket) -> BaseProcess:
        self.started.append(small.started(next(self._next), end))
        return self.started[-1]

    def _one_is_ready(self) -> None:
        self.ready += 1

    async def number(self, count: int) -> None:
        """Wait until so many workers were started."""
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


async def test_workers_end_when_they_are_stopped_and_are_announced_once() -> None:
    parent = Parent(2, small.obedient)
    async with running(parent) as task:
        await wait_until("ready", lambda: parent.ready > 0)
        await parent.number(2)
        parent.workers.stop()
        await task
    assert [process.exitcode for process in parent.started] == [0, 0]
    assert parent.ready == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
async def test_a_worker_that_a_signal_ended_is_replaced(number: signal.Signals) -> None:
    parent = Parent(2, small.obedient)
    async with running(parent) as task:
        await parent.number(2)
        await wait_until("ready", lambda: parent.ready == 1)
        with capture_logs() as logs:
            kill(parent.started[0], number)
            await parent.number(3)
        assert not task.done()
    (died,) = (one for one in logs if one["event"] == "worker_died")
    assert died["reason"].endswith(f"ended with exit code {-number}")


@pytest.mark.parametrize("behaviour", [small.refused, small.crashed, small.killed])
async def test_a_replacement_that_does_not_start_is_tried_again_with_growing_pauses(
    behaviour: Behaviour,
) -> None:
    parent = Parent(1, small.obedient, *[behaviour] * 3, small.obedient)
    with capture_logs() as logs:
        async with running(parent) as task:
            await wait_until("ready", lambda: parent.ready == 1)
            kill(parent.started[0])
            await parent.number(5)
            assert not task.done()
    pauses = [one["next_in_s"] for one in logs if one["event"] == "worker_died"]
    assert pauses == [0.1, 0.2, 0.4, 0.8]


async def test_pauses_begin_again_for_a_worker_that_lived_longer_than_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "MAX_RESTART_DELAY", 0.0)
    parent = Parent(1, small.killed, small.killed, small.obedient)
    with capture_logs() as logs:
        async with running(parent):
            await wait_until("ready", lambda: parent.ready == 1)
    assert [one["next_in_s"] for one in logs if one["event"] == "worker_died"] == [0.1, 0.1]


@pytest.mark.parametrize("behaviour", [small.killed, small.cut_off])
async def test_a_worker_that_is_killed_in_the_first_start_is_no_refusal(
    behaviour: Behaviour,
) -> None:
    parent = Parent(1, behaviour, small.obedient)
    async with running(parent):
        await wait_until("ready", lambda: parent.ready == 1)


@pytest.mark.parametrize(
    ("behaviour", "error", "text"),
    [
        (small.refused, WorkerStartFailed, "the data are of a newer version"),
        (small.wrong_settings, SettingsError, "set API_TOKEN"),
        (small.crashed, WorkerStartFailed, "ended with exit code 3"),
    ],
)
async def test_a_refused_first_start_ends_all_and_says_why(
    behaviour: Behaviour, error: type[Exception], text: str
) -> None:
    parent = Parent(2, behaviour)
    with pytest.raises(error, match=text):
        await parent.workers.run()
    assert all(process.exitcode is not None for process in parent.started)
    assert parent.ready == 0


async def test_a_worker_without_a_process_is_a_refusal_at_first_and_tried_again_later() -> None:
    parent = Parent(1, small.obedient)

    def no_process(_: socket.socket) -> BaseProcess:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with pytest.raises(WorkerStartFailed, match="cannot be started"):
        await Workers(1, no_process, lambda: None).run()
    start, parent.workers._start = parent.workers._start, no_process
    parent.workers._was_ready = True
    with capture_logs() as logs:
        async with running(parent):
            await wait_until("two tries", lambda: len(logs) == 2)
            parent.workers._start = start
            await parent.number(1)
    assert {one["event"] for one in logs} == {"worker_died"}


async def test_a_silent_worker_is_killed_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "HEARTBEAT_TIMEOUT", 0.1)
    parent = Parent(1, small.stubborn)
    with capture_logs() as logs:
        async with running(parent):
            await wait_until(
                "silence", lambda: "worker_timed_out" in [one["event"] for one in logs]
            )
            await parent.number(2)
    assert parent.started[0].exitcode == -signal.SIGKILL


async def test_a_worker_that_does_not_end_in_a_hurry_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "FORCE_STOP_TIMEOUT", 0.1)
    parent = Parent(1, small.stubborn)
    async with running(parent) as task:
        await wait_until("ready", lambda: parent.ready == 1)
        parent.workers.stop()
        parent.workers.force_stop()
        await task
    assert parent.started[0].exitcode == -signal.SIGKILL


async def test_a_stop_before_a_worker_can_hear_it_is_told_to_it() -> None:
    parent = Parent(1, small.obedient)
    async with running(parent) as task:
        await parent.number(1)
        parent.workers.stop()
        await task
    assert parent.started[0].exitcode == 0
    assert len(parent.started) == 1


async def test_a_stop_ends_a_pause() -> None:
    parent = Parent(1, small.killed)
    with capture_logs() as logs:
        async with running(parent) as task:
            await wait_until("a pause", lambda: len(logs) == 1)
            parent.workers.stop()
            await task
    assert len(parent.started) == 1
