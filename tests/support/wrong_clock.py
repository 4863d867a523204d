"""A clock that is wrong for one process: libfaketime, which is Debian's package `faketime`."""

from pathlib import Path
from typing import Final

HOUR: Final = 3600  # seconds


class WrongClock:
    """Of the processes that are started with it; what it is wrong by may change while they run."""

    def __init__(self, folder: Path, *, monotonic: bool = False) -> None:
        """`folder`: where they look how wrong it is; `monotonic`: that clock is wrong too."""
        self._told = folder / "wrong-by"
        self._monotonic = monotonic
        self.set(0)

    def set(self, seconds: int) -> None:
        """Be ahead by so much, or behind."""
        new = self._told.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._told)  # never half of it

    @property
    def environ(self) -> dict[str, str]:
        """What makes a process believe it.

        Its monotonic clock stays right, as a machine's does, unless the machine stood still.
        """
        return {
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._told),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "0" if self._monotonic else "1",
        }

    @property
    def wrapper(self) -> tuple[str, ...]:
        """The same as a command in front of another."""
        return ("env", *(f"{name}={value}" for name, value in self.environ.items()))


def library() -> Path:
    """Of libfaketime, whose absence is an error."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "There is no libfaketime: on Debian, apt-get install faketime"
    return found[0]
