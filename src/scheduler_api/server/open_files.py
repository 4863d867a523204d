"""The limit of open files (RLIMIT_NOFILE): raised, and divided between kinds of connections."""

import resource
from typing import Final, NamedTuple

MAX_OPEN_FILES: Final = 65_536  # more than MAX_IN_FLIGHT and the API's clients of a process can use
RESERVED: Final = 48  # for store connections, lock files, event loop, log and imported modules


class ConnectionLimits(NamedTuple):
    """How many connections may be open at once."""

    deliveries: int  # that send a message
    receivers: int  # to receivers: those of deliveries, and idle ones kept for later deliveries
    clients: int  # of the API; above it, idle and slow ones are closed, else the response is 503


def connection_limits(wanted: int, limit: int) -> ConnectionLimits:
    """Divide `limit` descriptors: `wanted` for deliveries, but at most half.

    A quarter of the others is for idle connections to receivers.
    """
    free = max(2, limit - RESERVED)
    deliveries = min(wanted, free // 2)
    idle = (free - deliveries) // 4
    return ConnectionLimits(deliveries, deliveries + idle, free - deliveries - idle)


def raised_limit() -> int:
    """Raise the limit of this process as far as it may, and return it."""
    now, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY:
        return MAX_OPEN_FILES
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    while wanted > now and not _raise_to(wanted, hard):
        wanted //= 2
    return max(now, wanted)


def _raise_to(wanted: int, hard: int) -> bool:
    """Whether the kernel accepts it: macOS has a lower limit than the hard limit it reports."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return False
    return True
