"""Opens the store for an admin command, after a check that this version can use its data."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler_api.settings import Settings
from scheduler_api.store.store import Store, open_store


@asynccontextmanager
async def open_checked_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, after a check that this version can use its data.

    Raises: StoreStartFailed, StoreUnavailable, DataRefused.
    """
    async with open_store(settings) as store:
        await store.check_all()
        yield store
