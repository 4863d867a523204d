"""A thundering herd: many messages due in one second, while callers continue to create."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import Server

BATCH: Final = 1_000
LEAD: Final = 2.0  # seconds between the last create and the due second, as planned
CREATED_A_SECOND: Final = 2_500  # creates that a slow machine makes
SENT_A_SECOND: Final = 200  # slowest rate of sending that is waited for


class Herd(msgspec.Struct):
    """The result of a herd."""

    messages: int
    created: int  # messages created meanwhile, one after the other
    slowest_create_ms: float  # measured in the process of the receiver
    seconds: float  # from the due instant to the last arrival
    grown_mib: float  # largest growth of a replica's memory
    wrong: list[str]  # ids that did not arrive exactly once

    @property
    def sound(self) -> bool:
        """Whether nothing was lost or sent twice, and callers were answered."""
        return not self.wrong and self.created > 0


async def stampede(servers: Sequence[Server], receiver: Receiver, count: int) -> Herd:
    """Let all servers send `count` messages of one second, and measure them meanwhile."""
    due = time.time() + LEAD + count / CREATED_A_SECOND
    ids = [f"herd-{n}" for n in range(count)]
    for number, start in enumerate(range(0, count, BATCH)):
        server = servers[number % len(servers)]
        await _create(server, receiver.url, ids[start : start + BATCH], due)
    before = [_forget_peak(server) for server in servers]
    await wait_until("their time", lambda: time.time() > due, LEAD + count / CREATED_A_SECOND)
    patience = 20 + count / SENT_A_SECOND
    async with asyncio.timeout(patience):
        waits = await _create_meanwhile(servers, receiver, count)
    seconds = receiver.requests[-1].at - due
    await wait_until("all settled", lambda: _pending(servers[0], len(waits)), patience)
    arrived = Counter(receiver.ids())
    return Herd(
        messages=count,
        created=len(waits),
        slowest_create_ms=round(max(waits, default=0) * 1000, 1),
        seconds=round(seconds, 1),
        grown_mib=round(max(map(_grown, servers, before)), 1),
        wrong=sorted(it for it in {*ids, *arrived} if arrived[it] != 1),
    )


async def _create(server: Server, hook: str, ids: Sequence[str], due: float) -> None:
    instants = (due + n / len(ids) for n in range(len(ids)))
    messages = [
        {"id": it, "webhookUrl": hook, "scheduleTo": datetime.fromtimestamp(at, UTC).isoformat()}
        for it, at in zip(ids, instants, strict=True)
    ]
    status, body, _ = await server.ask("POST", "/messages/batch", {"messages": messages})
    assert status == 200, body
    assert {it["status"] for it in body["results"]} == {201}, body


async def _create_meanwhile(
    servers: Sequence[Server], receiver: Receiver, count: int
) -> list[float]:
    """Create messages for later until the herd has arrived → seconds of each create."""
    waits: list[float] = []
    while len(receiver.requests) < count:
        began = time.monotonic()
        await servers[len(waits) % len(servers)].create(webhookUrl=receiver.url, delay=3600)
        waits.append(time.monotonic() - began)
    return waits


async def _pending(server: Server, count: int) -> bool:
    _, page, _ = await server.ask("GET", "/messages?limit=1")
    return bool(page.get("total") == count)


def _forget_peak(server: Server) -> int:
    """Reset the peak of its memory → its memory now, KiB."""
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")
    return _memory(server, "VmRSS")


def _grown(server: Server, before: int) -> float:
    """MiB from that memory to the peak since."""
    return (_memory(server, "VmHWM") - before) / 1024


def _memory(server: Server, line: str) -> int:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(next(it for it in status.splitlines() if it.startswith(line)).split()[1])
