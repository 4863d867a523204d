"""Several processes share one store: one wakes for due messages, the others stand by."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest

from scheduler_api.store.claims import Claim, Share
from scheduler_api.store.queue import Queue
from scheduler_api.store.store import Store
from tests.delivery.conftest import Start
from tests.support import engines
from tests.support.factories import accepted
from tests.support.receiver import Receiver
from tests.support.waiting import wait_until

MESSAGES = 600
APART = timedelta(milliseconds=5)
SOON = timedelta(seconds=1)


@pytest.fixture
async def stores(valkey: str, prefix: str) -> AsyncIterator[list[Store]]:
    """Four, each with its own connections, like processes."""
    async with AsyncExitStack() as stack:
        yield [
            Store(
                await stack.enter_async_context(engines.opened(valkey)),
                prefix=prefix,
                partitions=engines.PARTITIONS,
                lease=timedelta(seconds=5),
                concurrency=64 * engines.PARTITIONS,
            )
            for _ in range(4)
        ]


ClaimCall = tuple[str, bool]  # the process, and whether its claim found messages


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> list[ClaimCall]:
    """Records every claim."""
    made, claim = list[ClaimCall](), Queue.claim

    async def noted(self: Queue, limit: int, ahead: float, share: Share) -> Claim:
        found = await claim(self, limit, ahead, share)
        made.append((self.worker_id, bool(found.messages)))
        return found

    monkeypatch.setattr(Queue, "claim", noted)
    return made


async def create(store: Store, receiver: Receiver, count: int, name: str = "m") -> None:
    """Messages that become due one after the other."""
    first = datetime.now(UTC) + SOON
    batch = [
        (f"{name}{n}", accepted(webhookUrl=receiver.url, payload=n, scheduleTo=at.isoformat()))
        for n, at in enumerate(first + n * APART for n in range(count))
    ]
    await store.messages.create_many(batch)


async def until_all_are_delivered(store: Store) -> None:
    async def nothing_pending() -> bool:
        return await store.messages.count() == 0

    await wait_until("nothing pending", nothing_pending, 30)


@pytest.mark.parametrize("processes", [1, 2, 4])
async def test_claimers_send_each_message_once_and_most_stand_by(
    stores: list[Store],  # first, so that they are closed last
    start: Start,
    receiver: Receiver,
    claims: list[ClaimCall],
    processes: int,
) -> None:
    for store in stores[:processes]:
        await start(store)
    await create(stores[0], receiver, MESSAGES)
    await until_all_are_delivered(stores[0])
    assert sorted(map(int, receiver.bodies())) == list(range(MESSAGES))
    in_vain = sum(not found for _, found in claims)
    # If each process claimed for each message: up to 1,800. A process in standby claims at least
    # ten times a second and partition, and more often before that.
    assert in_vain < 0.8 * MESSAGES * engines.PARTITIONS


async def test_claimers_replace_the_first_one_when_it_stops(
    stores: list[Store], start: Start, receiver: Receiver, claims: list[ClaimCall]
) -> None:
    dispatchers = {store.worker_id: await start(store) for store in stores[:2]}
    await create(stores[0], receiver, 100)
    await until_all_are_delivered(stores[0])
    first = next(worker_id for worker_id, found in reversed(claims) if found)
    dispatchers.pop(first).stop()
    claims.clear()
    await create(stores[2], receiver, 20, "later")
    await until_all_are_delivered(stores[2])
    assert {worker_id for worker_id, found in claims if found} == set(dispatchers)
    messages = [await stores[2].messages.get(f"later{n}") for n in range(20)]
    late = [attempt.lateness_ms for message in messages for attempt in message.attempts]
    assert len(late) == 20
    assert max(late) < 3_000  # far less than the safety poll
