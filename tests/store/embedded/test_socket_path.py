"""The socket of the embedded store in a folder with a long path."""

import tempfile
from pathlib import Path

import pytest

from scheduler_api.store.embedded import socket_path
from tests.support.embedded_store import (
    Members,
    Open,
    call,
    next_line,
)


async def test_socket_of_a_long_folder_is_in_the_folder(
    tmp_path: Path, open_store: Open, member: Members
) -> None:
    store = open_store(tmp_path / ("x" * 150))
    await store.start()
    assert (store.folder / "store.sock").is_socket()
    await call(store.socket, "SET", "key", "shared")
    joined = member(store.folder)
    assert await next_line(joined) == "member"


async def test_socket_path_of_a_long_folder_uses_a_link_in_the_home_folder_without_proc(
    tmp_path: Path, open_store: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket_path, "OPEN_FILES_FOLDER", tmp_path / "absent")
    with tempfile.TemporaryDirectory() as home:
        monkeypatch.setenv("HOME", home)
        first, second = (open_store(tmp_path / ("x" * 150)) for _ in range(2))
        await first.start()
        await second.start()
        assert await call(second.socket, "SET", "key", "shared")
        assert second.socket.is_relative_to(home)
        await second.stop()
        await first.stop()
