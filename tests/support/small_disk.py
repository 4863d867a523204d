"""A file system for one test, small enough to be filled."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

BLOCK: Final = bytes(4096)  # one page, the unit in which tmpfs allocates


class Disk:
    """The file system at `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self) -> None:
        """Fill it; other files may still grow to the end of their page."""
        full = pytest.raises(OSError, match="No space left on device")
        with self._ballast.open("ab", buffering=0) as ballast, full:
            while True:
                ballast.write(BLOCK)

    def free(self) -> None:
        """Free what `fill` took."""
        self._ballast.unlink()


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Disk]:
    """Mount one while the test runs; needs the right to mount. `size`: as for tmpfs."""
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs")
    subprocess.run(["mount", *options, folder], check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
