"""How many files and connections this process may have open, and for what; asked for by server."""

import resource
from typing import Final, NamedTuple

ENOUGH: Final = 65_536  # more than MAX_IN_FLIGHT and the callers of a process can use
OWN: Final = 48  # for connections to the store, its locks, the loop, the log and what is imported


class Budget(NamedTuple):
    """Connections that may be open at once."""

    deliveries: int
    receivers: int  # those of deliveries, and those that are kept for the next ones
    callers: int  # of the API; beyond these, idle and slow ones are closed, else the answer is 503


def budget(wanted: int, limit: int) -> Budget:
    """What `limit` descriptors are for if `wanted` deliveries are: they get at most half.

    A quarter of the others is for connections that are kept.
    """
    left = max(2, limit - OWN)
    deliveries = min(wanted, left // 2)
    kept = (left - deliveries) // 4
    return Budget(deliveries, deliveries + kept, left - deliveries - kept)


def limit() -> int:
    """How many may be open, which is from now on as many as this process may ask for."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY:
        return ENOUGH
    wanted = ENOUGH if most == resource.RLIM_INFINITY else min(most, ENOUGH)
    while wanted > now and not _raise_to(wanted, most):
        wanted //= 2
    return max(now, wanted)


def _raise_to(wanted: int, most: int) -> bool:
    """Whether the kernel allows it: that of macOS has a limit below the one that it names."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    except (OSError, ValueError):
        return False
    return True
