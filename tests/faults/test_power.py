"""Power fails: the embedded store's file ends where the disk had written to."""

import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from redis.asyncio import Redis

from scheduler_api.store.embedded.supervisor import EmbeddedStore
from scheduler_api.store.store import Store
from tests.conftest import CONCURRENCY
from tests.support import invariants
from tests.support.factories import accepted
from tests.support.message_states import outcome
from tests.support.valkey import client

CUTS: Final = 12  # places where the file is cut off
MESSAGES: Final = 30


@asynccontextmanager
async def embedded(folder: Path) -> AsyncIterator[Redis]:
    """A client of the store in that folder."""
    store = EmbeddedStore(folder)
    await store.start()
    try:
        async with client(f"unix://{store.socket}") as redis:
            yield redis
    finally:
        await store.stop()


def journal(folder: Path) -> Path:
    """The store's append-only file."""
    (found,) = (folder / "appendonlydir").glob("*.incr.aof")
    return found


async def live(folder: Path, redis: Redis) -> dict[str, int]:
    """Create, claim and settle messages → id → size of the file at its 201."""
    store = Store(redis, concurrency=CONCURRENCY)
    stored: dict[str, int] = {}
    await store.check()
    for number in range(MESSAGES):
        await store.messages.create(f"m{number}", accepted())
        stored[f"m{number}"] = journal(folder).stat().st_size
        for claimed in (await store.queues[0].claim(number % 3)).messages:
            await store.queues[0].settle(outcome(claimed, "retry" if number % 2 else "delivered"))
    return stored


@pytest.fixture
async def whole(tmp_path: Path) -> tuple[Path, dict[str, int]]:
    """The folder of a used store that has ended, and the sizes at its answers."""
    folder = tmp_path / "whole"
    async with embedded(folder) as redis:
        stored = await live(folder, redis)
    return folder, stored


@pytest.mark.parametrize("seed", range(2))
async def test_append_only_file_cut_off_at_any_byte_has_all_that_was_answered_before(
    whole: tuple[Path, dict[str, int]], tmp_path: Path, seed: int
) -> None:
    """F31. Also in the middle of a script's writes: all of them are there, or none."""
    folder, stored = whole
    size = journal(folder).stat().st_size
    for cut in random.Random(seed).sample(range(size), CUTS):  # noqa: S311
        torn = tmp_path / f"cut-{cut}"
        shutil.copytree(folder, torn, ignore=shutil.ignore_patterns("*.sock"))
        with journal(torn).open("r+b") as file:
            file.truncate(cut)
        async with embedded(torn) as redis:
            store = Store(redis, concurrency=CONCURRENCY)
            for message_id, at in stored.items():
                if at <= cut:
                    assert (await store.messages.get(message_id)).id == message_id
            await invariants.check(redis, store.keys[0], CONCURRENCY)
