"""After any result of an attempt, its body is freed without the garbage collector."""

import asyncio
import gc
import socket
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from scheduler_api.delivery.http.sender import Sender
from scheduler_api.domain.message import Spec
from scheduler_api.store.claims import Claimed
from tests.delivery.conftest import send
from tests.support.attempt_endings import ENDINGS, TIMED, silent
from tests.support.waiting import wait_until

BODY = 4 * 1024 * 1024  # bytes: more than all servers together buffer
MANY = 8  # concurrent attempts


@pytest.fixture
def uncollected() -> Iterator[None]:
    """Disables the garbage collector: only reference counts free memory."""
    gc.collect()
    gc.disable()
    tracemalloc.start()
    yield
    tracemalloc.stop()
    gc.enable()


@pytest.fixture(autouse=True)
def no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """No name resolves, and no name server is asked."""

    def getaddrinfo(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def claimed(url: str, timeout: float = 60) -> Claimed:
    """A message with its own body."""
    now = datetime.now(UTC)
    spec = Spec(body=bytes(BODY), timeout=timeout)
    return Claimed("m", "w", 1, now, now, now, url, b"here", spec, 0, 0, b"")


async def attempts(sender: Sender, url: str, timeout: float) -> list[int | str | None]:
    """The results of several concurrent attempts."""
    sent = await asyncio.gather(*(send(sender, claimed(url, timeout)) for _ in range(MANY)))
    return [each.attempt.status or each.attempt.error for each in sent]


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("ending", ENDINGS)
async def test_send_leaves_no_body_in_memory(sender: Sender, ending: str) -> None:
    place, found = ENDINGS[ending]
    timeout = 0.2 if ending in TIMED else 60
    async with place() as url:
        before, _ = tracemalloc.get_traced_memory()
        assert await attempts(sender, url, timeout) == [found] * MANY
        left = tracemalloc.get_traced_memory()[0] - before
    assert left < BODY, "less than one body"


@pytest.mark.usefixtures("uncollected")
async def test_send_that_is_cancelled_leaves_no_body_in_memory(sender: Sender) -> None:
    async with silent() as url:
        before, _ = tracemalloc.get_traced_memory()
        open_ones = [asyncio.create_task(send(sender, claimed(url))) for _ in range(MANY)]
        connector = sender._transport._connector
        await wait_until("all requests", lambda: len(connector._acquired) == MANY)
        for one in open_ones:
            one.cancel()
        await asyncio.wait(open_ones)
        del open_ones, one
        left = tracemalloc.get_traced_memory()[0] - before
    assert left < BODY
