"""Warnings that the store is nearly full, before it refuses new messages."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from scheduler_api.store.connection.client import Client
from scheduler_api.store.connection.durability import read_info
from scheduler_api.store.connection.scripts import FAILURES, failure

WARN_ABOVE: Final = 0.9  # of maxmemory


async def warnings(redis: Client) -> list[str]:
    """One sentence for each server that is nearly full. Raises: StoreUnavailable."""
    try:
        found = await read_info(redis, "memory")
    except FAILURES as error:
        raise await failure(redis, error) from error
    return [warning for name, info, _ in found for warning in _warnings(name, info)]


def _warnings(name: str, info: Mapping[str, Any]) -> Iterator[str]:
    used, limit = info["used_memory"], info["maxmemory"]
    if limit and used >= WARN_ABOVE * limit:
        where = f" on {name}" if name else ""
        yield (
            f"the store uses {100 * used // limit} % of its maxmemory{where}; when it is full, new "
            "messages get 503: increase MAX_MEMORY, or maxmemory of your Redis"
        )
