"""Which processes of this machine live: each holds the lock of a file named by its worker id.

Needs no process ids, which the system reuses, and no clock: whoever gets the lock knows that the
other process is dead, and a stopped process still holds it.
"""

from collections.abc import Generator
from pathlib import Path

from scheduler_api.store.embedded.file_lock import FileLock

SUFFIX = ".lock"


class Processes:
    """Those whose DATA_DIR is the same folder of the same machine."""

    def __init__(self, data_dir: Path, epoch: str) -> None:
        """`epoch`: of this process, as its claims carry it."""
        self._folder = data_dir / "processes"
        self._epoch = epoch
        self._own = FileLock(self._folder / f"{epoch}.new")

    def join(self) -> None:
        """Be known as alive until `leave`, or the end of this process. Raises: OSError."""
        self._folder.mkdir(0o700, parents=True, exist_ok=True)
        self._own.take()
        # Under its name only once it is locked, or another could find it and think us dead.
        self._own.path.rename(self._path(self._epoch))

    def leave(self) -> None:
        """The file stays: should a claim be left behind, the next process finds it."""
        self._own.release()

    def dead(self) -> Generator[str]:
        """Epochs of those that ended; while one is looked at, no other process is given it.

        Raises: OSError.
        """
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            lock = FileLock(path)
            try:
                if lock.take():
                    yield path.name.removesuffix(SUFFIX)
            finally:
                lock.release()

    def forget(self, epoch: str) -> None:
        """Nothing of it is left."""
        self._path(epoch).unlink(missing_ok=True)

    def _path(self, epoch: str) -> Path:
        return self._folder / f"{epoch}{SUFFIX}"
