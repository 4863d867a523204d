"""A clock of the store that tests set; everything else is the real server."""

from redis.asyncio import Redis

from scheduler_api.store.connection.script_text import lua_text
from scheduler_api.store.keys import tag

PARTITIONS = 3  # at most, of a store with such a clock, as a script reads its own slot only
_HEAD = "local time = call('TIME')"


class Clock:
    """The store's clock, kept in a key that the scripts read instead of TIME."""

    def __init__(self, redis: Redis, key: str) -> None:
        """`key`: of partition 0; those of other partitions have their own tag."""
        self._redis = redis
        self.key = key

    async def set(self, ms: int) -> None:
        """The time, in ms since 1970."""
        for partition in range(PARTITIONS):
            key = self.key.replace("{0}", f"{{{tag(partition)}}}")
            await self._redis.rpush(key, 0, 0)
            await self._redis.lset(key, 0, str(ms // 1000))
            await self._redis.lset(key, 1, str(ms % 1000 * 1000))
            await self._redis.ltrim(key, 0, 1)

    async def now(self) -> int:
        """Set it, in ms since 1970."""
        seconds, micros = await self._redis.lrange(self.key, 0, 1)
        return int(seconds) * 1000 + int(micros) // 1000

    async def advance(self, ms: int) -> None:
        """Move it ahead by this many ms."""
        await self.set(await self.now() + ms)


def clock_lib(key: str) -> dict[str, str]:
    """`libs` (see Scripts) of a store that reads the time in this key."""
    lua = lua_text("lib/clock.lua")
    assert lua.count(_HEAD) == 1, "the clock is read in one place"
    name = f"('{key}'):gsub('{{0}}', KEYS[1]:match('{{%d+}}'))"
    return {"clock": lua.replace(_HEAD, f"local time = call('LRANGE', ({name}), 0, 1)")}
