"""The messages of the original service, in its Redis. They are only read."""

from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis

from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.connection.scripts import FAILURES, unavailable

PREFIX: Final = b"message:"  # then the id
LEGACY_BATCH: Final = 100  # keys on a page

Original = tuple[str, bytes]  # id and value


async def originals(address: str) -> AsyncIterator[list[Original]]:
    """Pages of the string keys `message:*` of the Redis at `address`.

    A key may be returned twice, as by every SCAN. Raises: StoreUnavailable.
    """
    redis = connect(address)
    try:
        keys: list[Any] = []
        async for key in redis.scan_iter(PREFIX + b"*", count=LEGACY_BATCH, _type="string"):
            keys.append(key)
            if len(keys) == LEGACY_BATCH:
                yield await _values(redis, keys)
                keys = []
        yield await _values(redis, keys)
    except FAILURES as error:
        raise unavailable(error) from error
    finally:
        await close(redis)


async def _values(redis: Redis, keys: list[bytes]) -> list[Original]:
    """Keys that were deleted meanwhile are left out."""
    found: list[Any] = await redis.mget(keys) if keys else []
    return [
        (key.removeprefix(PREFIX).decode(errors="backslashreplace"), value)
        for key, value in zip(keys, found, strict=True)
        if value is not None
    ]
