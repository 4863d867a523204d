"""A dispatcher over the live store, a sender, and claimed messages."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import AttemptStart, Sender, Sent
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.store.claims import Claimed
from scheduler_api.store.store import Store
from tests.support.factories import LOOPBACK, accepted

Start = Callable[..., Awaitable[Dispatcher]]
Claims = Callable[..., Awaitable[Claimed]]


async def send(sender: Sender, claimed: Claimed) -> Sent:
    """Make an attempt now, by this machine's clock."""
    return await sender.send(claimed, AttemptStart(datetime.now(UTC), time.monotonic()))


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    """Sends to loopback, unsigned."""
    async with open_transport(LOOPBACK) as transport:
        yield Sender(transport, timeout=timedelta(seconds=5), secrets=())


@pytest.fixture
def claim(live_store: Store) -> Claims:
    """Stores a message with these fields and claims it."""

    async def claim(url: str, message_id: str = "m", **fields: Any) -> Claimed:
        await live_store.messages.create(message_id, accepted(webhookUrl=url, **fields))
        claims = [await queue.claim(1) for queue in live_store.queues]
        (claimed,) = [one for claim in claims for one in claim.messages]
        return claimed

    return claim


@pytest.fixture
async def start(live_store: Store, sender: Sender) -> AsyncIterator[Start]:
    """Starts a dispatcher of `live_store`, or of another store; drains it at the end."""
    async with AsyncExitStack() as stack:

        async def start(
            store: Store = live_store,
            *,
            slots: int = 64,
            lease: float = 5,
            check: Callable[[int], Awaitable[None]] | None = None,
            **limits: int,
        ) -> Dispatcher:
            dispatcher = Dispatcher(
                store.queues,
                store.notifier,
                sender,
                store.growth,
                check or store.check,
                slots=slots,
                lease=timedelta(seconds=lease),
                **limits,
            )
            dispatcher.start()
            stack.push_async_callback(dispatcher.drain, timedelta(seconds=1))
            return dispatcher

        yield start
