"""Whatever comes of an attempt, nothing keeps its body, not even until the collector looks."""

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from scheduler_api.delivery.http.sender import Sender
from scheduler_api.domain.message import Spec
from scheduler_api.store.queue import Claimed
from tests.delivery.conftest import send
from tests.support.attempt_endings import ENDINGS, TIMED, silent
from tests.support.waiting import wait_until

BODY = 4 * 1024 * 1024  # bytes: more than the servers of all attempts together buffer
MANY = 8  # attempts at one time


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Only reference counts free what is not used any more."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.fixture(autouse=True)
def no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name has an address, and none is asked for outside of this process."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def claimed(url: str, timeout: float = 60) -> Claimed:
    """A message with a body of its own."""
    now = datetime.now(UTC)
    spec = Spec(body=bytes(BODY), timeout=timeout)
    return Claimed("m", "w", 1, now, now, now, url, b"here", spec, 0, 0, b"")


async def attempts(sender: Sender, url: str, timeout: float) -> list[int | str | None]:
    """What comes of several at one time."""
    sent = await asyncio.gather(*(send(sender, claimed(url, timeout)) for _ in range(MANY)))
    return [each.attempt.status or each.attempt.error for each in sent]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("ending", ENDINGS)
async def test_an_attempt_leaves_no_body_behind(sender: Sender, ending: str) -> None:
    place, found = ENDINGS[ending]
    timeout = 0.2 if ending in TIMED else 60
    async with place() as url:
        before, _ = tracemalloc.get_traced_memory()
        assert await attempts(sender, url, timeout) == [found] * MANY
        left = tracemalloc.get_traced_memory()[0] - before
    assert left < BODY, "of so many bodies, not even one"


@pytest.mark.usefixtures("uncollected")
async def test_an_attempt_that_is_cut_off_leaves_no_body_behind(sender: Sender) -> None:
    async with silent() as url:
        before, _ = tracemalloc.get_traced_memory()
        open_ones = [asyncio.create_task(send(sender, claimed(url))) for _ in range(MANY)]
        connector = sender._transport._connector
        await wait_until("all are sent", lambda: len(connector._acquired) == MANY)
        for one in open_ones:
            one.cancel()
        await asyncio.wait(open_ones)
        del open_ones, one
        left = tracemalloc.get_traced_memory()[0] - before
    assert left < BODY
