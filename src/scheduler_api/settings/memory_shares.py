"""How much memory this service may use, and how it is divided between its parts."""

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from scheduler_api.settings import Settings

DEFAULT_SHARE: Final = 3 / 4  # of the available memory, unless MAX_MEMORY is set
MIN_MEMORY: Final = 64 * 1024**2  # bytes, as for MAX_MEMORY; a store limit of 0 means no limit
ROOT: Final = Path("/")  # above /proc and /sys; another directory in tests

# Whether it is cgroup v1 → the directory of the hierarchy, and the files that may hold a limit.
_HIERARCHIES: Final = {
    True: ("sys/fs/cgroup/memory", ("memory.limit_in_bytes",)),
    False: ("sys/fs/cgroup", ("memory.max", "memory.high")),
}


class Shares(NamedTuple):
    """The parts of MAX_MEMORY, bytes. The rest is for code and for heap fragmentation."""

    store: int  # data of the embedded store; 0 without one
    requests: int  # request bodies that one process reads and stores
    deliveries: int  # messages that one process sends


def memory_shares(settings: Settings) -> Shares:
    """The shares that these settings give each part."""
    embedded = not settings.redis_address
    return shares(settings.max_memory, settings.workers, embedded=embedded)


def shares(total: int, workers: int, *, embedded: bool, root: Path = ROOT) -> Shares:
    """Divide `total` bytes, of all processes and the embedded store; 0: of the available memory."""
    total = total or max(MIN_MEMORY, int(DEFAULT_SHARE * memory(root)))
    store = total // 2 if embedded else 0
    process = (total - store) // 2 // workers
    return Shares(store, process // 2, process // 2)


def memory(root: Path = ROOT) -> int:
    """Available bytes: the machine's, or the lowest limit of the cgroups of this process."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([physical, *_limits(root)])


def _limits(root: Path) -> Iterator[int]:
    try:
        text = os.fsdecode(
            (root / "proc/self/cgroup").read_bytes()
        )  # cgroup names may be any bytes
    except OSError:  # not Linux
        return
    for _, controllers, path in re.findall(r"^(\d+):(.*?):(/.*)$", text, re.MULTILINE):
        if not controllers or "memory" in controllers.split(","):
            directory, names = _HIERARCHIES[bool(controllers)]
            # In a container the path may be that on the host, but its own cgroup is mounted at the
            # root: so all parents are read too.
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                for name in names:
                    yield from _limit(root / directory / group.relative_to("/") / name)


def _limit(file: Path) -> Iterator[int]:
    try:
        text = file.read_bytes().strip()
    except OSError:
        return
    if text.isdigit():  # not "max"
        yield int(text)
