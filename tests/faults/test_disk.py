"""The disk of the store is full, and then has space again."""

import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import Logs, Service, events, replica, told_unavailable
from tests.support.receiver import Receiver
from tests.support.small_disk import Disk, small_disk
from tests.support.valkey import valkey_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.machine

SIZE: Final = "4m"
PADDING: Final = "x" * 1000  # of a payload, so that few messages fit into a page
LONG: Final = 1.5  # seconds until messages are due that have to fall due on a full disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk for the store alone."""
    with small_disk(tmp_path / "disk", SIZE) as one:
        yield one


async def create_until_refused(service: Service, receiver: Receiver) -> tuple[list[str], str]:
    """Create until the page is full → ids with a 201, and the code of the refusal."""
    ids: list[str] = []
    for number in count():
        fields = {"id": f"m{number}", "webhookUrl": receiver.url, "delay": LONG}
        async with service.http.post("/messages", json=fields | {"payload": PADDING}) as answer:
            if answer.status != 201:
                return ids, await told_unavailable(answer)
            ids.append(f"m{number}")
    raise AssertionError


async def one_on_the_wire(service: Service, receiver: Receiver) -> None:
    """Create a message whose request the receiver holds open."""
    receiver.hold.clear()
    assert await service.create(id="open", webhookUrl=receiver.url) == 201
    await wait_until("the request", lambda: receiver.ids() == ["open"])


async def fall_due(logs: Logs) -> None:
    """Wait until the dispatcher has failed to claim."""
    began = time.monotonic()
    await wait_until("their time", lambda: time.monotonic() > began + LONG + 0.5)
    await wait_until("the loss", lambda: len(events(logs, "store_lost")) > 0)


async def all_arrive(service: Service, receiver: Receiver, ids: list[str]) -> None:
    """Check that each arrived once; those with a 503 may be missing."""
    for message_id in ids:
        await service.reach(message_id, "delivered", 40)
    assert set(ids) <= set(receiver.ids())
    assert len(receiver.ids()) == len(set(receiver.ids()))


@pytest.fixture
async def forgiving(disk: Disk, tmp_path: Path) -> AsyncIterator[Service]:
    """A replica whose store syncs each second, and continues if it cannot write."""
    config = ("appendonly yes", "appendfsync everysec")
    async with (
        valkey_server(disk.folder, *config) as server,
        replica(server.address, tmp_path) as service,
    ):
        yield service


async def test_store_with_a_full_disk_gets_nothing_new_and_nothing_is_sent_until_it_heals(
    forgiving: Service, disk: Disk, receiver: Receiver, logs: Logs
) -> None:
    """F29. MISCONF: open requests are settled afterwards, with the status that they got."""
    await one_on_the_wire(forgiving, receiver)
    disk.fill()
    ids, code = await create_until_refused(forgiving, receiver)
    assert code == "store_full"
    receiver.hold.set()
    await fall_due(logs)
    assert receiver.ids() == ["open"], "what could not be settled is not sent"
    assert await forgiving.health() == (503, "connected"), "it reads, but nothing is sent"
    assert await forgiving.refusal(id="refused", webhookUrl=receiver.url) == "store_full"
    disk.free()
    await forgiving.healed()
    await all_arrive(forgiving, receiver, ["open", *ids])
    assert "refused" not in receiver.ids()


async def test_embedded_store_with_a_full_disk_ends_and_comes_back_with_every_201(
    disk: Disk, receiver: Receiver, logs: Logs
) -> None:
    """F30, F54. With `always` the store exits; it is restarted until it can write."""
    async with replica(None, disk.folder / "data") as service:
        await one_on_the_wire(service, receiver)
        disk.fill()
        ids, code = await create_until_refused(service, receiver)
        assert code in ("store_unavailable", "outcome_unknown")
        await wait_until("its end", lambda: len(events(logs, "store_exited")) > 0)
        receiver.hold.set()
        await fall_due(logs)
        assert receiver.ids() == ["open"]
        disk.free()
        await service.healed()
        await all_arrive(service, receiver, ["open", *ids])
