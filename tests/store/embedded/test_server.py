"""The process of the embedded store: started, watched, killed and stopped."""

import asyncio
import os
import signal
import socket as socketlib
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import LogCapture

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded import server as server_module
from scheduler_api.store.embedded import supervisor
from scheduler_api.store.embedded.server import Watch, send_command
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
    start_orphan,
)
from tests.support.stream_server import unix_server
from tests.support.waiting import wait_until


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux signals the end of a parent to its child"
)
async def test_store_ends_with_a_killed_owner(tmp_path: Path, member: Members) -> None:
    first = member(tmp_path)
    assert await next_line(first) == "owner"
    assert len(servers(tmp_path)) == 1
    first.kill()
    await wait_until("the store ends by itself", lambda: not servers(tmp_path))


async def test_start_stops_an_orphan_and_keeps_its_data(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    orphan = start_orphan(tmp_path)
    store = open_store(tmp_path)
    await wait_until("the orphan answers", lambda: replies(store.socket))
    for number in range(100):
        await call(store.socket, "SET", f"key{number}", "acknowledged")
    await store.start()
    assert orphan.poll() == 0
    assert servers(tmp_path) == [await pid_of(store.socket)]
    assert await call(store.socket, "DBSIZE") == 100
    assert event_names(log) == ["orphaned_store_stopped", "store_started"]


async def test_start_fails_and_leaves_an_orphan_that_does_not_stop(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_SHUTDOWNS", 1)
    monkeypatch.setattr(server_module, "COMMAND_TIMEOUT", 0.2)
    orphan = start_orphan(tmp_path)
    store = open_store(tmp_path)
    await wait_until("the orphan answers", lambda: replies(store.socket))
    orphan.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreStartFailed, match="An earlier store still runs"):
        await store.start()
    assert servers(tmp_path) == [orphan.pid]
    orphan.kill()
    orphan.wait()


async def test_killed_store_is_started_again(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    killed = await pid_of(store.socket)
    os.kill(killed, signal.SIGKILL)
    await wait_until("the store is back", lambda: event_names(log).count("store_started") == 2)
    assert await pid_of(store.socket) != killed
    assert await call(store.socket, "GET", "key") == "kept"
    assert {"event": "store_exited", "exit_code": -9, "log_level": "error"} in log.entries


async def test_store_that_ran_for_long_is_started_again_after_the_shortest_delay(
    tmp_path: Path, open_store: Open, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "MIN_STORE_RESTART_DELAY", 0.2)
    monkeypatch.setattr(supervisor, "MAX_STORE_RESTART_DELAY", 0.0)  # any run is a long one
    store = open_store(tmp_path)
    await store.start()
    for times in (2, 3):
        killed_at = time.monotonic()
        os.kill(await pid_of(store.socket), signal.SIGKILL)
        await wait_until("the store is back", partial(started, log, times))
        assert time.monotonic() - killed_at > 0.2


def started(log: LogCapture, times: int) -> bool:
    return event_names(log).count("store_started") == times


async def test_wait_for_failure_returns_when_the_folder_is_not_owned(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await store._server.wait_for_failure(lambda: False)
    assert event_names(log) == ["store_started"]
    assert await replies(store.socket)


def remove_socket(folder: Path) -> None:
    (folder / "store.sock").unlink()


def replace_socket(folder: Path) -> None:
    remove_socket(folder)
    with socketlib.socket(socketlib.AF_UNIX) as other:
        other.bind(str(folder / "store.sock"))


def remove_store_lock(folder: Path) -> None:
    (folder / "store.lock").unlink()


def remove_locks_and_socket(folder: Path) -> None:
    remove(folder, "*.lock")
    remove_socket(folder)


@pytest.mark.parametrize(
    "lose", [remove_socket, replace_socket, remove_store_lock, remove_locks_and_socket]
)
async def test_store_whose_files_were_removed_is_started_again_with_its_data(
    tmp_path: Path, open_store: Open, log: LogCapture, lose: Callable[[Path], None]
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    lose(tmp_path)
    await wait_until("the store is back", lambda: event_names(log).count("store_started") == 2)
    assert await call(store.socket, "GET", "key") == "kept"
    assert servers(tmp_path) == [await pid_of(store.socket)]
    assert "store_killed" in event_names(log)


async def test_stopped_store_is_killed_and_started_again(
    tmp_path: Path, open_store: Open, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "COMMAND_TIMEOUT", 0.1)
    watch = Watch(check_interval=0.05, checks_per_ping=2, max_unanswered_pings=3)
    store = open_store(tmp_path, watch=watch)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    os.kill(await pid_of(store.socket), signal.SIGSTOP)
    await wait_until("the store is back", lambda: event_names(log).count("store_started") == 2)
    assert await call(store.socket, "GET", "key") == "kept"
    reasons = [one["reason"] for one in log.entries if one["event"] == "store_killed"]
    assert reasons == ["no reply to 3 PINGs"]


async def test_store_that_replies_sometimes_is_not_killed(
    tmp_path: Path, open_store: Open, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def every_third(socket: Path, command: bytes) -> bytes:
        nonlocal asked
        if socket != store.socket:  # the store of all tests is watched too
            return await send_command(socket, command)
        asked += 1
        return b"-LOADING\r\n" if asked % 3 == 0 else b""

    store = open_store(tmp_path, watch=Watch(check_interval=0.01, max_unanswered_pings=3))
    await store.start()
    monkeypatch.setattr(server_module, "send_command", every_third)
    await wait_until("many asks", lambda: asked > 30)
    monkeypatch.undo()
    assert event_names(log) == ["store_started"]


async def test_start_fails_if_another_server_on_the_socket_does_not_stop(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "MAX_SHUTDOWNS", 2)
    store = open_store(tmp_path)
    (tmp_path / "store.sock").unlink(missing_ok=True)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"-ERR Errors trying to SHUTDOWN\r\n")

    async with unix_server(deaf, tmp_path / "store.sock"):
        with pytest.raises(StoreStartFailed, match="An earlier store still runs"):
            await store.start()
    assert servers(tmp_path) == []


async def test_ctrl_c_does_not_reach_the_store(tmp_path: Path, member: Members) -> None:
    first = member(tmp_path)
    assert await next_line(first) == "owner"
    socket = tmp_path / "store.sock"
    pid = await pid_of(socket)
    os.killpg(first.pid, signal.SIGINT)
    assert await next_line(first) == "interrupted"
    assert await call(socket, "SET", "key", "while draining")
    assert await pid_of(socket) == pid


async def test_start_reports_a_broken_file_with_the_log_of_the_store(
    tmp_path: Path, open_store: Open
) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("broken\n")
    with pytest.raises(StoreStartFailed, match="Invalid AOF manifest file format"):
        await open_store(tmp_path).start()
    assert servers(tmp_path) == []


async def test_start_loads_an_incomplete_file_without_its_last_command(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "whole")
    await store.stop()
    with next((tmp_path / "appendonlydir").glob("*.incr.aof")).open("ab") as journal:
        journal.write(b"*3\r\n$3\r\nSET\r\n$3\r\nke")
    await store.start()
    assert await call(store.socket, "GET", "key") == "whole"
    assert await call(store.socket, "DBSIZE") == 1


async def test_start_rotates_a_large_log(tmp_path: Path, open_store: Open) -> None:
    (tmp_path / "store.log").write_bytes(b"x" * (server_module.MAX_LOG_BYTES + 1))
    await open_store(tmp_path).start()
    assert (tmp_path / "store.log.1").stat().st_size == server_module.MAX_LOG_BYTES + 1
    assert (tmp_path / "store.log").stat().st_size < 10_000


async def test_start_ends_a_store_that_never_replies(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "START_TIMEOUT", 0.3)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho waiting for nothing\nexec sleep 60\n")
    silent.chmod(0o700)
    with pytest.raises(StoreStartFailed, match=r"does not reply:\nwaiting for nothing"):
        await open_store(tmp_path, binary=silent).start()


async def test_stop_kills_a_store_that_does_not_end(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_TIMEOUT", 0.2)
    store = open_store(tmp_path)
    await store.start()
    os.kill(await pid_of(store.socket), signal.SIGSTOP)
    await store.stop()
    assert servers(tmp_path) == []
