"""The token: never empty, generated once by any number of processes, readable by its owner only."""

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scheduler_api.server.token_file import Token, load_token, path
from scheduler_api.settings import Settings, SettingsError

START = """
import sys
from pathlib import Path
from scheduler_api.settings import Settings
from scheduler_api.server.token_file import load_token
sys.stdin.readline()
found = load_token(Settings(data_dir=Path(sys.argv[1])))
print(found.value, found.created)
"""


def test_load_token_returns_a_set_token_and_writes_nothing(tmp_path: Path) -> None:
    chosen = Settings(api_token="given", data_dir=tmp_path / "data")
    assert load_token(chosen) == Token("given", created=False)
    assert not chosen.data_dir.exists()


@pytest.mark.parametrize("empty", ["", " \n"])
def test_load_token_generates_a_long_token_for_its_owner_only(tmp_path: Path, empty: str) -> None:
    chosen = Settings(api_token=empty, data_dir=tmp_path / "data")
    made = load_token(chosen)
    assert made.created
    assert len(made.value) >= 43
    assert stat.S_IMODE(path(chosen).stat().st_mode) == 0o600
    assert stat.S_IMODE(chosen.data_dir.stat().st_mode) == 0o700
    assert [it.name for it in chosen.data_dir.iterdir()] == ["token"]


def test_load_token_returns_the_same_token_at_the_next_start(tmp_path: Path) -> None:
    chosen = Settings(data_dir=tmp_path)
    assert load_token(chosen).created
    assert load_token(chosen) == Token(load_token(chosen).value, created=False)


def test_load_token_in_four_processes_at_once_generates_one_token(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(tmp_path / "data")]
    starts = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for start in starts:
        assert start.stdin
        start.stdin.write("go\n")
        start.stdin.flush()
    printed = [start.communicate(timeout=30)[0].split() for start in starts]
    assert len({value for value, _ in printed}) == 1
    assert sorted(created for _, created in printed) == ["False", "False", "False", "True"]


def test_load_token_reads_a_token_that_another_process_has_just_saved(tmp_path: Path) -> None:
    chosen = Settings(data_dir=tmp_path)
    # A link without a target: it does not exist for the check, but it exists for os.link.
    path(chosen).symlink_to(tmp_path / "other")
    with pytest.raises(SettingsError, match="No such file"):
        load_token(chosen)
    (tmp_path / "other").write_text("first\n")
    assert load_token(chosen) == Token("first", created=False)


def test_load_token_refuses_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(" \n")
    with pytest.raises(SettingsError, match="token is empty: delete it"):
        load_token(Settings(data_dir=tmp_path))


@pytest.mark.parametrize("spoil", [Path.mkdir, lambda file: file.write_bytes(b"\xff")])
def test_load_token_says_what_to_do_about_an_unreadable_file(tmp_path: Path, spoil: object) -> None:
    assert callable(spoil)
    spoil(tmp_path / "token")
    with pytest.raises(SettingsError, match=r"token cannot be used .*: set API_TOKEN"):
        load_token(Settings(data_dir=tmp_path))


def test_load_token_says_what_to_do_about_a_directory_that_cannot_be_created(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="set DATA_DIR to a directory that this user can write"):
        load_token(Settings(data_dir=tmp_path / "file" / "data"))
