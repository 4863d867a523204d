"""The claims of a process of this machine that died are sent at once."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.upkeep import recovery as takeover
from scheduler_api.delivery.upkeep.recovery import take_over, taking_over
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.queue import MAX_CRASHES
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.support.factories import accepted
from tests.support.partitions import queue_of
from tests.support.waiting import wait_until


@pytest.fixture
def dead(redis: Redis, prefix: str, tmp_path: Path) -> Store:
    """Of a process that has ended; its leases last fifteen seconds."""
    return ended(Store(redis, prefix=prefix, partitions=PARTITIONS), tmp_path)


def ended(store: Store, data_dir: Path) -> Store:
    """The store as a process saw it that joined and ended."""
    processes = Processes(data_dir, store.epoch)
    processes.join()
    processes.leave()
    return store


def files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "processes").iterdir())


async def test_claims_are_taken_over_at_the_start(
    live_store: Store, dead: Store, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    await queue_of(dead, "a").claim(1)

    with capture_logs() as logs:
        async with taking_over(Processes(tmp_path, live_store.epoch), live_store.queues):
            await wait_until("the take-over told", lambda: bool(logs))
            assert (await live_store.messages.get("a")).state == "scheduled"
    assert [(it["event"], it["returned"]) for it in logs] == [("claims_recovered", 1)]


async def test_one_that_dies_later_is_noticed_and_its_file_removed(
    live_store: Store, redis: Redis, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "LOOK_EVERY", 0.01)
    other = Store(redis, prefix=prefix, partitions=PARTITIONS)
    sibling = Processes(tmp_path, other.epoch)
    sibling.join()
    await live_store.messages.create("a", accepted())
    await queue_of(other, "a").claim(1)
    async with taking_over(Processes(tmp_path, live_store.epoch), live_store.queues):
        assert (await live_store.messages.get("a")).state == "delivering"
        sibling.leave()
        await wait_until("one file", lambda: files(tmp_path) == [f"{live_store.epoch}.lock"])
        assert (await live_store.messages.get("a")).state == "scheduled"


async def test_a_dead_process_is_forgotten_by_the_look_that_finds_nothing_of_it(
    live_store: Store, dead: Store, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    await queue_of(dead, "a").claim(1)
    us = Processes(tmp_path, live_store.epoch)
    await take_over(us, live_store.queues)
    assert files(tmp_path) == [f"{dead.epoch}.lock"]
    await take_over(us, live_store.queues)
    assert files(tmp_path) == []


async def test_a_message_that_outlived_too_many_is_told(
    live_store: Store, redis: Redis, prefix: str, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    us = Processes(tmp_path, live_store.epoch)
    with capture_logs() as logs:
        for _ in range(MAX_CRASHES):
            dead = ended(Store(redis, prefix=prefix, partitions=PARTITIONS), tmp_path)
            await queue_of(dead, "a").claim(1)
            await take_over(us, live_store.queues)
    assert logs[-1] == {
        "event": "message_failed",
        "log_level": "error",
        "message_id": "a",
        "error": "process_died",
    }


async def test_a_folder_that_cannot_be_written_is_a_warning(
    live_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        async with taking_over(Processes(tmp_path / "file", "a"), live_store.queues):
            pass
    assert [(it["event"], it["log_level"]) for it in logs] == [("recovery_unavailable", "warning")]
    assert "DATA_DIR" in logs[0]["reason"]
