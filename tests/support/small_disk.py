"""A file system of a test's own, small enough to be filled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

BLOCK: Final = bytes(4096)  # a page of memory, in which a tmpfs gives its space away


class Disk:
    """One that is mounted at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Take all that is free; what others wrote may still grow to the end of its page."""
        full = pytest.raises(OSError, match="No space left on device")
        with self._ballast.open("ab", buffering=0) as ballast, full:
            while True:
                ballast.write(BLOCK)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """Mounted while the test runs, which needs the right to mount; `size` as tmpfs takes it."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs")
    subprocess.run(["mount", *options, folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
