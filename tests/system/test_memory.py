"""MAX_MEMORY holds for a real process during a burst, and deliveries continue."""

import asyncio
import io
import json
from collections import Counter
from pathlib import Path

import aiohttp

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import TOKEN, Server, serving

MIB = 1024**2
BODY = 8 * MIB  # bytes of a large request
BURST = 30  # large requests at the same time
MAX_MEMORY = 128 * MIB
OWN = 110 * MIB  # for the Python process, its imports and the work on one body


def peak(server: Server) -> int:
    """The peak memory of the process, bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


async def test_max_memory_holds_during_a_burst_of_large_bodies_and_deliveries_continue(
    tmp_path: Path, receiver: Receiver
) -> None:
    memory, body = f"{MAX_MEMORY // MIB}MiB", f"{BODY // MIB}MiB"
    async with serving(
        tmp_path, EGRESS_ALLOW="127.0.0.1", MAX_MEMORY=memory, MAX_BODY=body
    ) as server:
        due = await server.create(webhookUrl=receiver.url, delay=1)
        later = {"webhookUrl": receiver.url, "delay": "1d", "payload": "x" * (BODY - 1000)}
        large = json.dumps(later).encode()
        codes = Counter[object]()

        async def post(session: aiohttp.ClientSession) -> None:
            async with session.post("/messages", data=io.BytesIO(large)) as response:
                found = await response.json(content_type=None)
                codes[found.get("code", response.status)] += 1

        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with aiohttp.ClientSession(server.url, headers=headers) as session:
            await asyncio.gather(*(post(session) for _ in range(BURST)))
        assert set(codes) == {201, "store_full"}, "the store has half of the memory"
        # Not their state: a store that is short of memory deletes finished messages early.
        await wait_until("the due messages", lambda: receiver.ids() == [due])
        assert peak(server) < OWN + MAX_MEMORY // 2
        _, listed, _ = await server.ask("GET", "/messages")
        assert listed["total"] == codes[201], "no message that was answered 201 is lost"


async def test_memory_of_finished_messages_is_used_for_new_ones(
    tmp_path: Path, receiver: Receiver
) -> None:
    """Three times as much as the store may hold is stored and delivered, in sequence."""
    async with serving(tmp_path, EGRESS_ALLOW="127.0.0.1", MAX_MEMORY="64MiB") as server:
        now = {"webhookUrl": receiver.url, "payload": "x" * (MIB - 1000)}
        large = json.dumps(now).encode()

        async def stored() -> bool:
            """A slow machine may respond 503 until it has delivered more."""
            status, answer, _ = await server.ask("POST", "/messages", large)
            assert status == 201 or answer["code"] == "store_full"
            return status == 201

        for number in range(96):
            await wait_until(f"message {number} is stored", stored)
        await wait_until("all delivered", lambda: len(receiver.requests) == 96, 30)
        assert server.events("finished_messages_forgotten")
