"""How much memory the machine or container gives this service, and what that is divided into."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

USED: Final = 3 / 4  # of what there is, unless MAX_MEMORY is set; the rest is for others
LEAST: Final = 64 * 1024**2  # bytes, as of MAX_MEMORY: a share of 0 would be no limit of the store
ROOT: Final = Path("/")  # where the kernel shows what it has

# The folder of a hierarchy and the files that may hold a limit, by whether it is that of cgroup v1.
_HIERARCHIES: Final = {
    True: ("sys/fs/cgroup/memory", ("memory.limit_in_bytes",)),
    False: ("sys/fs/cgroup", ("memory.max", "memory.high")),
}


class Shares(NamedTuple):
    """What MAX_MEMORY is for, bytes. What is left is for the programs and their fragmentation."""

    store: int  # the data of the embedded store; 0 without one
    requests: int  # bodies that a process reads and stores
    deliveries: int  # messages that a process sends


def shares(total: int, workers: int, *, embedded: bool, root: Path = ROOT) -> Shares:
    """`total`: of all processes and the embedded store together, bytes; 0: by the machine's."""
    total = total or max(LEAST, int(USED * memory(root)))
    store = total // 2 if embedded else 0
    process = (total - store) // 2 // workers
    return Shares(store, process // 2, process // 2)


def memory(root: Path = ROOT) -> int:
    """Bytes of the machine, or the least limit of the cgroups that this process is in."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    try:
        text = os.fsdecode((root / "proc/self/cgroup").read_bytes())  # the names are of any bytes
    except OSError:  # no Linux
        return
    for _, controllers, place in re.findall(r"^(\d+):(.*?):(/.*)$", text, re.MULTILINE):
        if not controllers or "memory" in controllers.split(","):
            folder, names = _HIERARCHIES[bool(controllers)]
            # A container may see the name that its cgroup has on the host, mounted as the root.
            for group in (PurePosixPath(place), *PurePosixPath(place).parents):
                for name in names:
                    yield from _limit(root / folder / group.relative_to("/") / name)


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_bytes().strip()
    except OSError:
        return
    if text.isdigit():  # not "max"
        yield int(text)
