"""The claims of a dead process of this machine are due again at once."""

from pathlib import Path

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from scheduler_api.delivery.upkeep import recovery
from scheduler_api.delivery.upkeep.recovery import recover_dead, recovering
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.queue import MAX_CRASHES
from scheduler_api.store.store import Store
from tests.conftest import PARTITIONS
from tests.support.factories import accepted
from tests.support.partitions import queue_of
from tests.support.waiting import wait_until


@pytest.fixture
def dead(redis: Redis, prefix: str, tmp_path: Path) -> Store:
    """The store of a process that has ended; its leases last 15 seconds."""
    return ended(Store(redis, prefix=prefix, partitions=PARTITIONS), tmp_path)


def ended(store: Store, data_dir: Path) -> Store:
    """The same store, after its process registered itself and ended."""
    processes = Processes(data_dir, store.worker_id)
    processes.join()
    processes.leave()
    return store


def files(data_dir: Path) -> list[str]:
    return sorted(path.name for path in (data_dir / "processes").iterdir())


async def test_recovering_returns_claims_of_dead_processes_at_the_start(
    live_store: Store, dead: Store, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    await queue_of(dead, "a").claim(1)

    with capture_logs() as logs:
        async with recovering(Processes(tmp_path, live_store.worker_id), live_store.queues):
            await wait_until("the log", lambda: bool(logs))
            assert (await live_store.messages.get("a")).state == "scheduled"
    assert [(it["event"], it["returned"]) for it in logs] == [("claims_recovered", 1)]


async def test_recovering_notices_a_later_death_and_removes_its_file(
    live_store: Store, redis: Redis, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "RECOVERY_INTERVAL", 0.01)
    other = Store(redis, prefix=prefix, partitions=PARTITIONS)
    sibling = Processes(tmp_path, other.worker_id)
    sibling.join()
    await live_store.messages.create("a", accepted())
    await queue_of(other, "a").claim(1)
    async with recovering(Processes(tmp_path, live_store.worker_id), live_store.queues):
        assert (await live_store.messages.get("a")).state == "delivering"
        sibling.leave()
        await wait_until("one file", lambda: files(tmp_path) == [f"{live_store.worker_id}.lock"])
        assert (await live_store.messages.get("a")).state == "scheduled"


async def test_recover_dead_forgets_a_process_once_it_finds_no_claim_of_it(
    live_store: Store, dead: Store, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    await queue_of(dead, "a").claim(1)
    us = Processes(tmp_path, live_store.worker_id)
    await recover_dead(us, live_store.queues)
    assert files(tmp_path) == [f"{dead.worker_id}.lock"]
    await recover_dead(us, live_store.queues)
    assert files(tmp_path) == []


async def test_recover_dead_fails_a_message_after_too_many_crashes(
    live_store: Store, redis: Redis, prefix: str, tmp_path: Path
) -> None:
    await live_store.messages.create("a", accepted())
    us = Processes(tmp_path, live_store.worker_id)
    with capture_logs() as logs:
        for _ in range(MAX_CRASHES):
            dead = ended(Store(redis, prefix=prefix, partitions=PARTITIONS), tmp_path)
            await queue_of(dead, "a").claim(1)
            await recover_dead(us, live_store.queues)
    assert logs[-1] == {
        "event": "message_failed",
        "log_level": "error",
        "message_id": "a",
        "error": "process_died",
    }


async def test_recovering_warns_if_data_dir_cannot_be_written(
    live_store: Store, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        async with recovering(Processes(tmp_path / "file", "a"), live_store.queues):
            pass
    assert [(it["event"], it["log_level"]) for it in logs] == [("recovery_unavailable", "warning")]
    assert "DATA_DIR" in logs[0]["reason"]
