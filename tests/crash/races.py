"""DELETE races the claim: each message is deleted at about its due instant."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
import msgspec
from aiohttp import web

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import TOKEN

CONCURRENT_RACES: Final = 200  # races
LEAD: Final = 0.3  # seconds from the create to the due instant
BEFORE: Final = 0.05  # earliest DELETE, seconds before the due instant
AFTER: Final = 0.1  # latest DELETE, seconds after it
SLOWEST: Final = 0.05  # longest time that the receiver takes, seconds
PATIENCE: Final = 30.0  # seconds until everything that was not deleted has arrived

Reply = tuple[int, str]  # status and code of a DELETE
DELETED: Final[Reply] = (200, "")
# Answers of a DELETE that deletes nothing.
IN_FLIGHT: Final[Reply] = (409, "in_flight")
SENT: Final[Reply] = (404, "message_finished")


class Races(msgspec.Struct):
    """The result of the races."""

    deleted: int
    in_flight: int  # refused because it was in flight
    sent: int  # refused because it had been sent
    wrong: list[str]  # sent though deleted; or not deleted, and not sent exactly once

    @property
    def count(self) -> int:
        """Number of races."""
        return self.deleted + self.in_flight + self.sent


async def race(urls: Sequence[str], receiver: Receiver, count: int, seed: int) -> Races:
    """`urls`: of the replicas; each call goes to a random one."""
    randomly = random.Random(seed)  # noqa: S311

    async def slowly(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(randomly.uniform(0, SLOWEST))
        return web.Response()

    receiver.answer = slowly
    replies: dict[str, Reply] = {}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for start in range(0, count, CONCURRENT_RACES):
            ids = [str(n) for n in range(start, min(start + CONCURRENT_RACES, count))]
            due = time.time() + LEAD
            await _create(session, randomly.choice(urls), receiver.url, ids, due)
            instants = [due + randomly.uniform(-BEFORE, AFTER) for _ in ids]
            places = [randomly.choice(urls) for _ in ids]
            deletes = map(_delete, [session] * len(ids), places, ids, instants)
            replies |= dict(zip(ids, await asyncio.gather(*deletes), strict=True))
    return await _judged(replies, receiver)


async def _create(
    session: aiohttp.ClientSession, url: str, hook: str, ids: Sequence[str], due: float
) -> None:
    at = datetime.fromtimestamp(due, UTC).isoformat()
    messages = [{"id": it, "webhookUrl": hook, "scheduleTo": at} for it in ids]
    async with session.post(f"{url}/messages/batch", json={"messages": messages}) as answer:
        body: Any = await answer.json()
    assert {it["status"] for it in body["results"]} == {201}, body


async def _delete(
    session: aiohttp.ClientSession, url: str, message_id: str, moment: float
) -> Reply:
    await asyncio.sleep(moment - time.time())
    async with session.delete(f"{url}/messages/{message_id}") as answer:
        return answer.status, (await answer.json()).get("code", "")


async def _judged(replies: dict[str, Reply], receiver: Receiver) -> Races:
    left = {it for it, one in replies.items() if one != DELETED}
    await wait_until("what was not deleted", lambda: left <= {*receiver.ids()}, PATIENCE)
    arrived, ends = Counter(receiver.ids()), Counter(replies.values())
    return Races(
        deleted=ends[DELETED],
        in_flight=ends[IN_FLIGHT],
        sent=ends[SENT],
        wrong=[
            f"{it}: DELETE answered {one}, sent {arrived[it]} times"
            for it, one in replies.items()
            if one not in (DELETED, IN_FLIGHT, SENT) or arrived[it] != (it in left)
        ],
    )
