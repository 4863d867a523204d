"""A store that may lose messages: reported by a running service, refused with STRICT."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from scheduler_api.domain.errors import StoreUnavailable
from scheduler_api.server.compose import _check
from scheduler_api.store.store import Store
from tests.support.configured_store import DURABLE, server
from tests.support.valkey import client
from tests.system.processes import free_port, refused_start, serving

WEAK = ("appendonly yes", "appendfsync everysec")


async def test_service_reports_a_weak_store_in_the_log_and_in_health(tmp_path: Path) -> None:
    async with (
        server(tmp_path / "store", *WEAK) as address,
        serving(tmp_path, REDIS_URL=address) as service,
    ):
        (event,) = service.events("store_not_durable")
        _, body, _ = await service.ask("GET", "/health")
    assert event["level"] == "warning"
    assert event["reason"].startswith("appendfsync is everysec")
    assert (body["status"], body["warnings"]) == ("healthy", [event["reason"]])


async def test_strict_service_starts_with_a_durable_store(tmp_path: Path) -> None:
    async with (
        server(tmp_path / "store", *DURABLE) as address,
        serving(tmp_path, REDIS_URL=address, STRICT="1") as service,
    ):
        _, body, _ = await service.ask("GET", "/health")
    assert (body["status"], body["warnings"]) == ("healthy", [])


async def test_strict_service_refuses_a_weak_store_and_names_the_setting(tmp_path: Path) -> None:
    async with server(tmp_path / "store", *WEAK) as address:
        ended = refused_start(tmp_path, address, STRICT="1")
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(
        "Error: STRICT=1 refuses this store: appendfsync is everysec"
    )


@pytest.mark.parametrize("workers", ["1", "2"])
def test_strict_service_refuses_an_unreachable_store_and_names_it(
    tmp_path: Path, workers: str
) -> None:
    place = f"127.0.0.1:{free_port()}"
    ended = refused_start(tmp_path, f"redis://{place}", STRICT="1", WORKERS=workers)
    assert ended.returncode == 1
    assert "Error: The store cannot be reached" in ended.stderr
    assert place in ended.stderr.splitlines()[-1]


async def test_check_waits_for_a_store_that_refuses_the_login_unless_strict(tmp_path: Path) -> None:
    async with (
        server(tmp_path / "store", *DURABLE),
        client(f"unix://nobody:wrong@{tmp_path}/store/s") as redis,
    ):
        with capture_logs() as logs:
            await _check(Store(redis), strict=False)
        assert [one["event"] for one in logs] == ["store_unavailable_at_start"]
        with pytest.raises(StoreUnavailable):
            await _check(Store(redis), strict=True)
