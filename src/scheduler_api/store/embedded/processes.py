"""The processes of this machine that share a data folder, and which of them have died.

Each process holds the lock of a file named by its worker id. This needs no process ids, which the
system reuses, and no clock: if the lock is free, the process is dead. A stopped process holds it.
"""

from collections.abc import Generator
from pathlib import Path
from typing import Final

from scheduler_api.store.embedded.file_lock import FileLock

LOCK_SUFFIX: Final = ".lock"


class Processes:
    """The processes that have the same DATA_DIR on the same machine."""

    def __init__(self, data_dir: Path, worker_id: str) -> None:
        """`worker_id`: of this process, as in its claims."""
        self._folder = data_dir / "processes"
        self._worker_id = worker_id
        self._own = FileLock(self._folder / f"{worker_id}.new")

    def join(self) -> None:
        """Count as alive until `leave` or the end of this process. Raises: OSError."""
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        self._own.acquire()
        # The file gets its name after it is locked; otherwise another process could find it
        # unlocked and regard this one as dead.
        self._own.path.rename(self._path(self._worker_id))

    def leave(self) -> None:
        """Count as dead. The file stays, so that the next process finds claims left behind."""
        self._own.release()

    def dead(self) -> Generator[str]:
        """Worker ids of the dead processes. No other process gets an id while it is in use here.

        Raises: OSError.
        """
        for path in sorted(self._folder.glob(f"*{LOCK_SUFFIX}")):
            lock = FileLock(path)
            try:
                if lock.acquire():
                    yield path.name.removesuffix(LOCK_SUFFIX)
            finally:
                lock.release()

    def forget(self, worker_id: str) -> None:
        """Remove a dead process that has no claims left."""
        self._path(worker_id).unlink(missing_ok=True)

    def _path(self, worker_id: str) -> Path:
        return self._folder / f"{worker_id}{LOCK_SUFFIX}"
