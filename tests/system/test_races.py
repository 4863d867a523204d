"""Races on two replicas: creates of one id, deletes against claims, many due at once."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.crash.herd import stampede
from tests.crash.races import race
from tests.support.external_store import ExternalStore
from tests.support.receiver import Receiver
from tests.system.processes import Server, serving_in_two

CALLERS = 50
DELETES = 1_000
HERD = 10_000
MOST_GROWN = 64  # MiB; some megabytes were measured, for any number of messages


@pytest.fixture
async def both(
    tmp_path: Path, external_store: ExternalStore
) -> AsyncIterator[tuple[Server, Server]]:
    """Two replicas over one store."""
    environ = external_store.environ | {"DESTINATION_CONCURRENCY": "1000"}
    async with serving_in_two(tmp_path, **environ) as servers:
        yield servers


async def test_concurrent_creates_of_one_id_create_and_send_one_message(
    both: tuple[Server, Server], receiver: Receiver
) -> None:
    message = {"id": "m", "webhookUrl": receiver.url, "delay": 1}
    asked = (both[n % 2].ask("POST", "/messages", message) for n in range(CALLERS))
    statuses = Counter(status for status, _, _ in await asyncio.gather(*asked))
    assert statuses == {201: 1, 409: CALLERS - 1}
    await both[0].reach("m", "delivered")
    assert receiver.ids() == ["m"]


async def test_delete_that_responds_200_prevents_the_attempt(
    both: tuple[Server, Server], receiver: Receiver
) -> None:
    races = await race([server.url for server in both], receiver, DELETES, seed=1)
    assert not races.wrong
    assert races.count == DELETES
    assert min(races.deleted, races.sent, races.in_flight) > 0


async def test_messages_due_in_one_second_arrive_once_each_in_bounded_memory(
    both: tuple[Server, Server], receiver: Receiver
) -> None:
    herd = await stampede(both, receiver, HERD)
    assert herd.sound, herd
    assert herd.grown_mib < MOST_GROWN
