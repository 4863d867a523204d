"""Which processes of the machine have died, by locks that the kernel releases."""

import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from scheduler_api.store.embedded.processes import Processes
from tests.support.waiting import wait_until

JOIN_AND_STAY = """
import sys
from pathlib import Path
from scheduler_api.store.embedded.processes import Processes
processes = Processes(Path(sys.argv[1]), sys.argv[2])
processes.join()
print("joined", flush=True)
sys.stdin.read()
"""


def other_process(data_dir: Path, worker_id: str) -> "subprocess.Popen[bytes]":
    """A real process that has joined."""
    command = (sys.executable, "-c", JOIN_AND_STAY, str(data_dir), worker_id)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"joined\n"
    return process


def files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "processes").iterdir())


def test_dead_is_empty_without_a_folder(tmp_path: Path) -> None:
    assert list(Processes(tmp_path / "none", "a").dead()) == []


def test_dead_has_a_process_that_left_and_none_that_joined(tmp_path: Path) -> None:
    one, other = Processes(tmp_path, "one"), Processes(tmp_path, "other")
    one.join()
    other.join()
    assert list(one.dead()) == list(other.dead()) == []
    assert files(tmp_path) == ["one.lock", "other.lock"]
    one.leave()
    assert list(other.dead()) == ["one"]
    other.leave()


async def test_dead_has_a_killed_process_but_not_a_stopped_one(tmp_path: Path) -> None:
    us = Processes(tmp_path, "us")
    with other_process(tmp_path, "theirs") as process:
        process.send_signal(signal.SIGSTOP)
        assert list(us.dead()) == []
        process.kill()
        await wait_until("its death", lambda: list(us.dead()) == ["theirs"])


def test_forget_removes_the_file(tmp_path: Path) -> None:
    dead, us = Processes(tmp_path, "dead"), Processes(tmp_path, "us")
    dead.join()
    dead.leave()
    us.forget("dead")
    us.forget("dead")  # another process has forgotten it already
    assert list(us.dead()) == []
    assert files(tmp_path) == []


def test_dead_gives_a_process_to_one_caller_at_a_time(tmp_path: Path) -> None:
    dead = Processes(tmp_path, "dead")
    dead.join()
    dead.leave()
    one, other = Processes(tmp_path, "one"), Processes(tmp_path, "other")
    with closing(one.dead()) as found:
        assert next(found) == "dead"
        assert list(other.dead()) == []
    assert list(other.dead()) == ["dead"]


def test_join_fails_if_the_folder_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Processes(tmp_path / "file", "a").join()
