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
    """An flock on one file: the kernel frees it when its last holder closes it or dies."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor = -1

    def take(self, mode: int = fcntl.LOCK_EX) -> bool:
        """Take it if nobody holds it → whether we have it. Raises: OSError."""
        if self.descriptor < 0:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self.descriptor, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

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
            self.descriptor = -1
