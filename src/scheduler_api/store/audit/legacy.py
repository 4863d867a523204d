"""The messages of the original service, as its Redis has them; asked by transfer.py."""

from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis

from scheduler_api.store.connection.client import close, connect
from scheduler_api.store.connection.scripts import FAILURES, unavailable

PREFIX: Final = b"message:"  # then the id
PAGE: Final = 100  # keys a step

Original = tuple[str, bytes]  # id and value


async def originals(address: str) -> AsyncIterator[list[Original]]:
    """Pages of what is kept there under `message:*`, which is only read.

    A key may come twice. Raises: StoreUnavailable.
    """
    redis = connect(address)
    try:
        keys: list[Any] = []
        async for key in redis.scan_iter(PREFIX + b"*", count=PAGE, _type="string"):
            keys.append(key)
            if len(keys) == PAGE:
                yield await _values(redis, keys)
                keys = []
        yield await _values(redis, keys)
    except FAILURES as error:
        raise unavailable(error) from error
    finally:
        await close(redis)


async def _values(redis: Redis, keys: list[bytes]) -> list[Original]:
    """Of those that are still there."""
    found: list[Any] = await redis.mget(keys) if keys else []
    return [
        (key.removeprefix(PREFIX).decode(errors="backslashreplace"), value)
        for key, value in zip(keys, found, strict=True)
        if value is not None
    ]
