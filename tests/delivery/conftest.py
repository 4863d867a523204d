"""A dispatcher over the live store, and what it is made of."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.sender import Sender
from scheduler_api.delivery.transport import open_transport
from scheduler_api.store.store import Store
from tests.support.factories import LOOPBACK

Start = Callable[..., Awaitable[Dispatcher]]


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """Sends to loopback, unsigned."""
    async with open_transport(LOOPBACK) as transport:
        yield Sender(transport, timeout=timedelta(seconds=5), secrets=())


@pytest.fixture
async def start(live_store: Store, sender: Sender) -> AsyncIterator[Start]:
    """Starts a dispatcher of `live_store` (or another store); drained in the end."""
    async with AsyncExitStack() as stack:

        async def start(
            store: Store = live_store,
            *,
            slots: int = 64,
            lease: float = 5,
            check: Callable[[int], Awaitable[None]] | None = None,
        ) -> Dispatcher:
            dispatcher = Dispatcher(
                store.queues,
                store.heads,
                sender,
                check or store.check,
                slots=slots,
                lease=timedelta(seconds=lease),
            )
            dispatcher.start()
            stack.push_async_callback(dispatcher.drain, timedelta(seconds=1))
            return dispatcher

        yield start
