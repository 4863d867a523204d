"""A wrong clock for single processes, by libfaketime (Debian: `faketime`)."""

from pathlib import Path
from typing import Final

HOUR: Final = 3600  # seconds


class WrongClock:
    """The clock of the processes that start with it; its error may change while they run."""

    def __init__(self, folder: Path, *, monotonic: bool = False) -> None:
        """`folder`: has the file with the error; `monotonic`: whether that clock is wrong too."""
        self._told = folder / "wrong-by"
        self._monotonic = monotonic
        self.set(0)

    def set(self, seconds: int) -> None:
        """Set the error: ahead by this many seconds, or behind."""
        new = self._told.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._told)  # so that no process reads half of it

    @property
    def environ(self) -> dict[str, str]:
        """The environment of a process with this clock.

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
        """The same, as a command to put before another one."""
        return ("env", *(f"{name}={value}" for name, value in self.environ.items()))


def library() -> Path:
    """The path of libfaketime; it is an error if it is missing."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "There is no libfaketime: on Debian, apt-get install faketime"
    return found[0]
