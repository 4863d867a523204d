"""The command fsck: its report and its exit code."""

import json
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.store.keys import partition_of
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.support.command_line import Done, Run
from tests.support.factories import accepted
from tests.support.partitions import keys_of

IN_PARTITIONS = "1 partition" if PARTITIONS == 1 else f"{PARTITIONS} partitions"
PART = str(partition_of(b"a", PARTITIONS))  # of the damaged message, as in the table


@pytest.fixture
async def damaged(redis: Redis, live_store: Store) -> Any:
    """Name of a key that is not of this service; a message has lost its place too."""
    await live_store.messages.create("a", accepted(delay=3600))
    await live_store.messages.create("b", accepted(delay=3600))
    base = keys_of(live_store, "a").base
    await redis.zrem(f"{base}due", "a")
    await redis.set(f"{base}notes", "mine")
    yield f"{base}notes"
    await redis.delete(f"{base}notes")
    await redis.zadd(f"{base}due", {"a": 1})


def table(done: Done) -> list[list[str]]:
    """The cells of the table, without the last line."""
    lines = done.stdout.decode().splitlines()[:-1]
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines]


def last(done: Done) -> str:
    return done.stdout.decode().splitlines()[-1]


async def test_fsck_reports_an_undamaged_store_in_one_line(run: Run, live_store: Store) -> None:
    await live_store.messages.create("a", accepted(delay=3600))
    done = await run("fsck")
    assert (done.returncode, done.stderr) == (0, b"")
    assert last(done) == f"1 message checked in {IN_PARTITIONS}: no problems found"
    assert done.stdout.count(b"\n") == 1


async def test_fsck_prints_a_table_of_findings_and_exits_1(run: Run, damaged: str) -> None:
    done = await run("fsck")
    assert done.returncode == 1
    assert table(done) == [
        ["partition", "invariant", "rule", "subject", "finding", "repair"],
        [PART, "2", "no_place", "a", "has a record, but is in no place", "-"],
        [PART, "18", "stranger", damaged, "is not a key of this service", "-"],
    ]
    assert last(done) == f"2 messages checked in {IN_PARTITIONS}: 2 findings, 0 repaired"


async def test_fsck_repair_prints_each_change_and_what_is_left(
    run: Run, redis: Redis, damaged: str
) -> None:
    done = await run("fsck", "--repair")
    assert done.returncode == 1
    assert [row[-1] for row in table(done)[1:]] == ["put back to due", "-"]
    assert last(done).endswith("2 findings, 1 repaired")
    await redis.delete(damaged)
    done = await run("fsck")
    assert done.returncode == 0


async def test_fsck_json_prints_one_object(run: Run, damaged: str) -> None:
    done = await run("fsck", "--json", "--repair")
    found = json.loads(done.stdout)
    assert (found["messages"], found["partitions"], found["left"]) == (2, PARTITIONS, 1)
    assert found["findings"][0] == {
        "partition": int(PART),
        "invariant": 2,
        "rule": "no_place",
        "subject": "a",
        "detail": "has a record, but is in no place",
        "repair": "put back to due",
    }
    assert found["findings"][1]["subject"] == damaged
