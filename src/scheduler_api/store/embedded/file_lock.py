"""A lock on a file that ends with the process that holds it."""

import asyncio
import fcntl
import math
import os
import time
from pathlib import Path
from typing import Final

LOCK_POLL_INTERVAL: Final = 0.01  # seconds


class FileLock:
    """An flock on one file: the kernel releases it when its last holder closes it or dies.

    It is valid only while the file is at its path: another process could lock a new file there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1  # of the open file; -1: none
        self._acquired = False

    def acquire(self, mode: int = fcntl.LOCK_EX) -> bool:
        """Take the lock if it is free → whether this process has it. Raises: OSError."""
        while True:
            if self.descriptor < 0:
                self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self.descriptor, mode | fcntl.LOCK_NB)
                self._acquired = True
            except BlockingIOError:
                self._acquired = False
            if self._in_place():
                return self._acquired
            self.release()  # the open file was removed or replaced: lock the file at the path

    def held(self) -> bool:
        """Whether this process has the lock, and it is valid."""
        return self._acquired and self._in_place()

    def _in_place(self) -> bool:
        """Whether the open file is still the file at the path."""
        return file_identity(self.path) == file_identity(self.descriptor)

    async def acquire_when_free(self, mode: int = fcntl.LOCK_EX, timeout: float = math.inf) -> bool:
        """Take the lock as soon as it is free → whether that was within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while not self.acquire(mode):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LOCK_POLL_INTERVAL)
        return True

    def release(self) -> None:
        """Release the lock, if it was acquired."""
        if self.descriptor >= 0:
            # No LOCK_UN, which would also release the lock that a child process inherited.
            os.close(self.descriptor)
            self.descriptor, self._acquired = -1, False


def file_identity(file: Path | int) -> tuple[int, int] | None:
    """Device and inode of a path or descriptor; None: there is no such file."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
