"""Parent, workers and store are killed; only a signal to the parent stops the service."""

import fcntl
import signal
import socket
from pathlib import Path

import pytest

from tests.support.command_line import run_in
from tests.support.configured_store import server
from tests.support.external_store import ExternalStore
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import SERVE, is_locked, refused_start, serving, started
from tests.system.tree import (
    kill,
    store_pid,
    until_nothing_is_left,
    until_processes_are_gone,
    until_workers,
)

TWO = {"WORKERS": "2"}


async def test_strict_parent_restarts_its_workers_until_the_store_is_back(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    async with serving(
        tmp_path, SERVE, None, STRICT="1", **TWO, **external_store.environ
    ) as service:
        await service.create(id="before", webhookUrl=receiver.url, delay=1)
        old = tuple(await until_workers(service, 2))
        await external_store.stop()
        port = str(service.port)
        ready = await run_in(tmp_path, "healthcheck", API_PORT=port)
        live = await run_in(tmp_path, "healthcheck", "--live", API_PORT=port)
        assert (ready.returncode, live.returncode) == (1, 0), "a restart would not help"
        kill(*old)
        await wait_until(
            "worker starts that failed without the store",
            lambda: sum("reached" in one["reason"] for one in service.events("worker_died")) >= 2,
            20,
        )
        assert service.process.poll() is None
        await external_store.start()
        await service.ready()
        await service.reach("before", "delivered")
        await until_workers(service, 2, but=old)
        assert await service.stop() == 0
        await until_nothing_is_left(service)


async def test_workers_of_a_killed_parent_drain_and_exit_and_free_the_port(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.hold.clear()
    async with serving(tmp_path, SERVE, None, SHUTDOWN_GRACE="6s", **TWO) as service:
        await service.create(id="open", webhookUrl=receiver.url)
        await service.create(id="later", webhookUrl=receiver.url, delay=1)
        await wait_until("an open request", lambda: receiver.ids() == ["open"])
        await until_workers(service, 2)
        assert await service.stop(signal.SIGKILL) == -signal.SIGKILL
        async with started(tmp_path, SERVE, service.port, **TWO) as following:
            await service.event("parent_lost")
            receiver.hold.set()
            await following.ready()
            await following.reach("open", "delivered")
            await following.reach("later", "delivered")
            await until_processes_are_gone(service)
            assert await following.stop() == 0
        await until_nothing_is_left(service)
    assert receiver.ids() == ["open", "later"], (
        "requests that were open when the parent died were drained"
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_second_signal_ends_all_workers_at_once(
    tmp_path: Path, receiver: Receiver, number: signal.Signals
) -> None:
    receiver.hold.clear()
    async with serving(tmp_path, SERVE, None, **TWO) as service:
        await service.create(id="m", webhookUrl=receiver.url)
        await wait_until("the request", lambda: len(receiver.requests) == 1)
        await until_workers(service, 2)
        service.send_signal(number)
        await service.event("shutdown_requested")
        service.send_signal(number)
        assert await service.ended() == 0
        assert not service.events("message_delivered")
        assert [one["error"] for one in service.events("attempt_failed")] == ["shutdown"]
        await until_nothing_is_left(service)


async def test_worker_is_replaced_while_the_store_that_it_started_is_suspended(
    tmp_path: Path,
) -> None:
    """The store inherits no descriptor of the worker: the parent would not see the worker's end."""
    async with serving(tmp_path, SERVE, None, **TWO) as service:
        old = tuple(await until_workers(service, 2))
        store = store_pid(service)
        kill(store, number=signal.SIGSTOP)
        try:
            kill(*old)
            await until_workers(service, 2, but=old)
        finally:
            kill(store, number=signal.SIGCONT)
        await service.ready()
        assert await service.stop() == 0
        await until_nothing_is_left(service)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_signal_during_the_start_ends_the_service(tmp_path: Path, workers: str) -> None:
    """The start waits for a store that another process owns but does not start."""
    data = tmp_path / "data"
    data.mkdir()
    with (data / "owner.lock").open("wb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        async with started(tmp_path, WORKERS=workers) as service:
            await wait_until("a start that waits", lambda: is_locked(data / "members.lock"))
            assert await service.stop() == 0
            await until_nothing_is_left(service)


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_refused_start_prints_the_reason_and_fails(tmp_path: Path, workers: str) -> None:
    async with server(tmp_path / "store", "appendonly no") as address:
        weak = refused_start(tmp_path, address, STRICT="1", WORKERS=workers)
        assert weak.returncode == 1
        assert weak.stderr.splitlines()[-1].startswith(
            "Error: STRICT=1 refuses this store: appendonly"
        )
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "token").touch()
    empty = refused_start(tmp_path, address, API_TOKEN="", WORKERS=workers)
    assert empty.returncode == 2
    assert "token is empty" in empty.stderr.splitlines()[-1]


def test_start_is_refused_while_another_process_keeps_the_port(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = refused_start(tmp_path, "", API_PORT=port, WORKERS="2")
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port} (Address already")
