"""A lock that ends with the process that holds it; asked for by embedded.py and processes.py."""

import asyncio
import fcntl
import math
import os
import time
from pathlib import Path
from typing import Final

PAUSE: Final = 0.01  # seconds between two looks at a lock that is held elsewhere


class FileLock:
    """An flock on one file: the kernel frees it when its last holder closes it or dies.

    It counts only while the file is at its path: another file there can be locked by others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1
        self._taken = False

    def take(self, mode: int = fcntl.LOCK_EX) -> bool:
        """Take it if nobody holds it → whether we have it. Raises: OSError."""
        while True:
            if self.descriptor < 0:
                self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(self.descriptor, mode | fcntl.LOCK_NB)
                self._taken = True
            except BlockingIOError:
                self._taken = False
            if self._in_place():
                return self._taken
            self.release()  # what we opened was removed, or replaced: look at what is there now

    def held(self) -> bool:
        """Whether it was taken, and counts."""
        return self._taken and self._in_place()

    def _in_place(self) -> bool:
        """Whether the file that was opened is still the one at the path."""
        return identity(self.path) == identity(self.descriptor)

    async def wait(
        self, mode: int = fcntl.LOCK_EX, patience: float = math.inf, pause: float = PAUSE
    ) -> bool:
        """Take it as soon as it is free → whether that was within `patience` seconds."""
        deadline = time.monotonic() + patience
        while not self.take(mode):
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(pause)
        return True

    def release(self) -> None:
        """Let others have it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)  # no LOCK_UN: it would free a child's inherited lock as well
            self.descriptor, self._taken = -1, False


def identity(file: Path | int) -> tuple[int, int] | None:
    """Which file that is, as long as it exists; None: none is there."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino
