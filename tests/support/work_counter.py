"""Counts work instead of timing it: commands of a store, and calls of the product's functions."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from redis.asyncio import Redis

import scheduler_api

_OURS = str(Path(scheduler_api.__file__).parent)
# Commands of connecting and of reading the counts.
_BESIDE = ("hello", "client|", "config|", "info")


class Commands:
    """The commands that a store ran, those inside scripts included."""

    def __init__(self, redis: Redis) -> None:
        """`redis`: a client other than the counted one."""
        self._redis = redis

    async def forget(self) -> None:
        """Count from now on."""
        await self._redis.config_resetstat()

    async def since(self) -> Counter[str]:
        """Command → number of runs since `forget`."""
        stats: dict[str, Any] = await self._redis.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): it["calls"] for name, it in stats.items()}
        return Counter({name: n for name, n in counts.items() if not name.startswith(_BESIDE)})


@contextmanager
def our_calls() -> Iterator[Counter[str]]:
    """Function of the product → number of calls within the block."""
    found = Counter[str]()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(_OURS) and _begins(frame):
            found[code.co_qualname] += 1

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


def _begins(frame: FrameType) -> bool:
    """Whether this is a call, not a coroutine that resumes: how often those wait is random.

    Nor a comprehension, which is a call in Python 3.11 and none in 3.12.
    """
    code = frame.f_code
    # The argument of RESUME is 0 only at the start of a function.
    return not code.co_code[frame.f_lasti + 1] & 3 and not code.co_qualname.endswith("comp>")
