"""Loads lua/ and runs it; turns Redis's errors and a script's words into ours."""

from importlib.resources import files
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis

from scheduler_api.domain.errors import (
    MessageFinished,
    MessageInFlight,
    MessageNotFound,
    SchedulerError,
    StoreFull,
    StoreUnavailable,
)
from scheduler_api.store.keys import Keys

# What a call of the client may end with; uvloop says it so when it writes to what was reset.
FAILURES: Final = (exceptions.RedisError, OSError, RuntimeError)

# Asked for by messages.py, then by queue.py.
NAMES: Final = (
    *("create", "get", "list", "cancel"),
    *("claim", "settle", "release", "renew", "reap", "recover", "purge"),
)

# What a script answers instead of 'ok' → the error that says it.
ERRORS: Final[dict[bytes, type[SchedulerError]]] = {
    b"missing": MessageNotFound,
    b"finished": MessageFinished,
    b"in_flight": MessageInFlight,
}


def source(name: str, prelude: str | None = None) -> str:
    """A script as it is sent: its first line, the prelude, the rest."""
    lua = files("scheduler_api.store") / "lua"
    first, _, rest = (lua / f"{name}.lua").read_text().partition("\n")
    return f"{first}\n{prelude or (lua / 'prelude.lua').read_text()}\n{rest}"


class Scripts:
    """The scripts of one partition."""

    def __init__(self, redis: Redis, keys: Keys, prelude: str | None = None) -> None:
        """`prelude`: another than lua/prelude.lua, such as one with a clock that tests move."""
        self._keys = keys.all
        self._scripts = {name: redis.register_script(source(name, prelude)) for name in NAMES}

    async def run(self, name: str, *args: Any) -> Any:
        """The script's reply. Raises: StoreUnavailable, StoreFull."""
        try:
            return await self._scripts[name](keys=self._keys, args=args)
        except FAILURES as error:
            raise unavailable(error) from error


def unavailable(error: Exception) -> SchedulerError:
    """What a caller is told of an error of Redis; the cause is for the log."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith(("OOM", "MISCONF")):
        return StoreFull()
    return StoreUnavailable()
