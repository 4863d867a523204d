"""The embedded store shared by processes: who owns it, joins it and takes it over."""

import asyncio
import fcntl
import os
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded import server as server_module
from scheduler_api.store.embedded import supervisor
from scheduler_api.store.embedded.server import send_command
from tests.support.embedded_store import (
    Members,
    Open,
    call,
    event_names,
    next_line,
    pid_of,
    remove,
    replies,
    servers,
)
from tests.support.waiting import wait_until


async def test_start_has_the_data_from_before_the_stop(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path / "data")
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    await store.stop()
    assert servers(store.folder) == []
    await store.start()
    assert store.owner
    assert await call(store.socket, "GET", "key") == "kept"
    assert event_names(log) == ["store_started", "store_stopped", "store_started"]
    assert log.entries[2]["pid"] == await pid_of(store.socket)


async def test_start_of_a_second_process_joins_the_store(
    tmp_path: Path, open_store: Open, member: Members, log: LogCapture
) -> None:
    first = member(tmp_path)
    assert await next_line(first) == "owner"
    store = open_store(tmp_path)
    await call(store.socket, "SET", "key", "shared")
    await store.start()
    assert not store.owner
    assert await call(store.socket, "GET", "key") == "shared"
    assert event_names(log) == ["store_joined"]
    await store.stop()
    assert await replies(store.socket)


async def test_takeover_after_a_killed_owner_has_the_same_socket_and_data(
    tmp_path: Path, open_store: Open, member: Members, log: LogCapture
) -> None:
    first = member(tmp_path)
    assert await next_line(first) == "owner"
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    first.kill()
    await wait_until("the store is taken over", lambda: "store_started" in event_names(log))
    assert store.owner
    assert await call(store.socket, "GET", "key") == "kept"
    assert "store_taken_over" in event_names(log)
    assert len(servers(tmp_path)) == 1


async def test_stop_ends_a_supervision_that_swallows_a_cancel(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = asyncio.Event()
    answers = iter([b""])  # no reply before the start

    async def swallow(socket: Path, command: bytes) -> bytes:
        """As wait_for of Python 3.11 when the reply comes together with the cancel."""
        if socket != store.socket:
            return await send_command(socket, command)
        for answer in answers:
            return answer
        asking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return server_module.PONG

    store = open_store(tmp_path)
    await store.start()
    monkeypatch.setattr(server_module, "send_command", swallow)
    os.kill(await pid_of(store.socket), signal.SIGKILL)
    await wait_until("the next command", asking.is_set)
    async with asyncio.timeout(30):
        await store.stop()
    assert servers(tmp_path) == []


async def test_supervision_repeats_a_start_that_fails(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path)
    await store.start()
    manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"broken\n")
    os.kill(await pid_of(store.socket), signal.SIGKILL)
    await wait_until("a start fails", lambda: "store_start_failed" in event_names(log))
    manifest.write_bytes(whole)
    await wait_until("the store is back", lambda: event_names(log)[-1] == "store_started")
    assert await replies(store.socket)


@pytest.mark.parametrize("name", ["data", "x" * 150])
async def test_supervision_creates_a_removed_folder_for_all_processes(
    tmp_path: Path, open_store: Open, log: LogCapture, name: str
) -> None:
    owner, other = open_store(tmp_path / name), open_store(tmp_path / name)
    await owner.start()
    await other.start()
    shutil.rmtree(owner.folder)
    await wait_until("a store again", lambda: event_names(log).count("store_started") == 2)
    await wait_until("one owner", lambda: owner.owner != other.owner)
    await wait_until("the owner's way", lambda: replies(owner.socket))
    await wait_until("the other's way", lambda: replies(other.socket))
    assert len(servers(owner.folder)) == 1


async def test_supervision_waits_for_a_folder_that_cannot_be_created(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    owner, other = open_store(tmp_path / "data"), open_store(tmp_path / "data")
    await owner.start()
    await other.start()
    shutil.rmtree(owner.folder)
    owner.folder.touch()
    await wait_until("a start fails", lambda: "store_start_failed" in event_names(log))
    owner.folder.unlink()
    await wait_until("a store again", lambda: event_names(log).count("store_started") == 2)


async def test_stop_works_after_the_folder_was_removed(tmp_path: Path, open_store: Open) -> None:
    store = open_store(tmp_path / "data")
    await store.start()
    pid = await pid_of(store.socket)
    shutil.rmtree(store.folder)
    store.folder.touch()
    await store.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("removed", ["owner.lock", "*.lock"])
async def test_supervision_runs_one_store_after_the_locks_were_removed(
    tmp_path: Path, open_store: Open, removed: str
) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    await first.start()
    await call(first.socket, "SET", "key", "kept")
    remove(tmp_path, removed)
    await second.start()  # before the first one checks again
    assert await call(second.socket, "INCR", "count") == 1
    await wait_until("one owner", lambda: first.owner != second.owner)
    assert len(servers(tmp_path)) == 1
    await first.stop()
    await wait_until("the second owns it", lambda: second.owner)
    await wait_until("its store", lambda: replies(second.socket))
    assert await call(second.socket, "GET", "key") == "kept"
    assert await call(second.socket, "GET", "count") == "1"
    await second.stop()
    assert servers(tmp_path) == []


async def test_start_of_four_processes_at_once_runs_one_store(
    tmp_path: Path, member: Members
) -> None:
    processes = [member(tmp_path) for _ in range(4)]
    roles = await asyncio.gather(*(next_line(process) for process in processes))
    assert sorted(roles) == ["member", "member", "member", "owner"]
    assert len(servers(tmp_path)) == 1


async def test_stop_of_the_owner_waits_for_the_others(tmp_path: Path, open_store: Open) -> None:
    owner, other = open_store(tmp_path), open_store(tmp_path)
    await owner.start()
    await other.start()
    stopping = asyncio.create_task(owner.stop(timeout=10))
    await asyncio.wait([stopping], timeout=0.2)
    assert await replies(owner.socket)
    await other.stop()
    await asyncio.wait_for(stopping, 2)
    assert servers(tmp_path) == []


@pytest.mark.parametrize("removed", ["members.lock", "*.lock"])
async def test_stop_of_the_owner_waits_for_the_others_after_the_locks_were_removed(
    tmp_path: Path, open_store: Open, removed: str
) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    await first.start()
    await second.start()
    remove(tmp_path, removed)
    await wait_until("the lock again", (tmp_path / "members.lock").exists)
    await wait_until("one owner", lambda: first.owner != second.owner)
    owner, other = (first, second) if first.owner else (second, first)
    await wait_until("its store", lambda: replies(owner.socket))
    stopping = asyncio.create_task(owner.stop(timeout=10))
    await asyncio.wait([stopping], timeout=0.2)
    assert await replies(owner.socket)
    assert not other.owner
    await other.stop()
    await asyncio.wait_for(stopping, 2)
    assert servers(tmp_path) == []


async def test_stop_of_the_owner_waits_no_longer_than_its_timeout(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    owner, other = open_store(tmp_path), open_store(tmp_path)
    await owner.start()
    await other.start()
    began = time.monotonic()
    await owner.stop(timeout=0.3)
    assert 0.3 <= time.monotonic() - began < 2
    await wait_until("the other takes over", lambda: other.owner)
    await wait_until("its store answers", lambda: event_names(log).count("store_started") == 2)


async def test_start_names_a_folder_that_cannot_be_written(
    tmp_path: Path, open_store: Open
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreStartFailed, match=r"data folder .*file/data cannot be used: .*Not a"):
        await open_store(tmp_path / "file" / "data").start()


async def test_start_fails_if_the_store_of_the_owner_does_not_reply(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_TIMEOUT", 0.1)
    with (tmp_path / "owner.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreStartFailed, match="Another process owns"):
            await open_store(tmp_path).start()
