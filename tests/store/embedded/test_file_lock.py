"""Locks on files between processes and within one."""

import asyncio
import fcntl
from pathlib import Path

from scheduler_api.store.embedded.file_lock import FileLock, file_identity


def test_acquire_is_false_while_another_holder_has_the_lock(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert one.acquire()
    assert not other.acquire()
    assert (one.held(), other.held()) == (True, False)
    one.release()
    assert other.acquire()
    other.release()


def test_acquire_shared_allows_other_shared_locks_only(tmp_path: Path) -> None:
    locks = [FileLock(tmp_path / "a.lock") for _ in range(3)]
    assert locks[0].acquire(fcntl.LOCK_SH)
    assert locks[1].acquire(fcntl.LOCK_SH)
    assert not locks[2].acquire()
    for lock in locks:
        lock.release()


def test_held_is_false_after_the_file_was_removed(tmp_path: Path) -> None:
    lock, new = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert lock.acquire()
    lock.path.unlink()
    assert not lock.held()
    assert new.acquire()
    assert not lock.acquire()  # it is the new file that counts
    new.release()
    lock.release()


async def test_acquire_when_free_waits_for_the_release(tmp_path: Path) -> None:
    one, other = FileLock(tmp_path / "a.lock"), FileLock(tmp_path / "a.lock")
    assert one.acquire()
    assert not await other.acquire_when_free(timeout=0.02)
    waiting = asyncio.create_task(other.acquire_when_free(timeout=10))
    one.release()
    assert await waiting
    other.release()


def test_file_identity_is_none_without_a_file(tmp_path: Path) -> None:
    assert file_identity(tmp_path / "none") is None
    (tmp_path / "one").touch()
    assert file_identity(tmp_path / "one") == file_identity(tmp_path / "one")
