"""Callers that create and cancel, and a receiver; both write the history."""

import asyncio
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import aiohttp
from aiohttp import web

from tests.crash.fleet import Fleet
from tests.crash.history import Arrival, History, Offer, Outcome
from tests.support.receiver import Receiver, receiving
from tests.system.processes import TOKEN

CALLERS: Final = 4
PAUSE: Final = 0.06  # longest pause between two calls of a caller, seconds
ASKS: Final = 3  # tries of a caller that gets no answer
PATIENCE: Final = aiohttp.ClientTimeout(total=3)
HORIZON: Final = 1.5  # longest time from a create to its due instant, seconds
CANCELS: Final = 0.1  # share of the calls
REFUSED: Final = 0.05  # share of the requests that get a 500; retried after 5 s
SLOWEST: Final = 0.2  # longest time that the receiver takes, seconds

# Answers of a DELETE that deletes nothing; "no such message" is not one of them.
LEFT_ALONE: Final = (("in_flight", 409), ("message_finished", 404))

Hook = Callable[[str], Awaitable[None]]  # gets the message's id


class Sink:
    """Answers most requests with 200; calls its hooks when a request arrives and is answered."""

    def __init__(self, history: History, random: random.Random) -> None:
        self.came: Hook | None = None
        self.answered: Hook | None = None
        self._history = history
        self._random = random

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receiver]:
        """Run until the block ends."""
        async with receiving() as receiver:
            self._requests = receiver.requests
            receiver.answer = self._answer
            yield receiver

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        message_id = request.headers["Scheduler-Message-Id"]
        attempt = int(request.headers["Scheduler-Attempt"])
        arrival = Arrival(message_id, attempt, self._requests[-1].at, 0)
        self._history.arrivals.append(arrival)
        if self.came:
            await self.came(message_id)
        await asyncio.sleep(self._random.uniform(0, SLOWEST))  # so that requests are open
        refused = attempt == 1 and self._random.random() < REFUSED
        arrival.status, arrival.answered_at = 500 if refused else 200, time.time()
        response = web.Response(status=arrival.status)
        await response.prepare(request)
        await response.write_eof()
        if self.answered and not refused:
            await self.answered(message_id)
        return response


class Load:
    """Calls the replicas in random order, as through a load balancer, until it is stopped."""

    def __init__(self, fleet: Fleet, history: History, seed: int, hook: str) -> None:
        self._fleet = fleet
        self._history = history
        self._random = random.Random(seed)  # noqa: S311
        self._hook = hook
        self._stopping = False
        self._recent: list[str] = []  # ids that were acknowledged; some get cancelled

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run until the block ends."""
        # One connection a call, as a replica may have been killed since the last one.
        connector = aiohttp.TCPConnector(force_close=True)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            aiohttp.ClientSession(
                connector=connector, headers=headers, timeout=PATIENCE
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(CALLERS):
                group.create_task(self._call(session))
            yield
            self._stopping = True

    async def _call(self, session: aiohttp.ClientSession) -> None:
        while not self._stopping:
            await asyncio.sleep(self._random.uniform(0, PAUSE))
            if self._recent and self._random.random() < CANCELS:
                await self._cancel(session)
            else:
                await self._create(session)

    async def _create(self, session: aiohttp.ClientSession) -> None:
        due_at = time.time() + self._random.uniform(-0.5, HORIZON)
        at = datetime.fromtimestamp(due_at, UTC).isoformat(timespec="milliseconds")
        message_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        body = {"id": message_id, "webhookUrl": self._hook, "scheduleTo": at, "payload": due_at}
        offer = Offer(datetime.fromisoformat(at).timestamp(), "failed")
        self._history.offers[message_id] = offer
        for _ in range(ASKS):
            status, answer = await self._ask(session, "POST", "/messages", json=body)
            if status == 201 or answer.get("code") == "duplicate_message":
                offer.outcome = "ok"
                self._recent.append(message_id)
                return
            assert status in (0, -1, 503), (status, answer)
            offer.outcome = _worse(offer.outcome, status)

    async def _cancel(self, session: aiohttp.ClientSession) -> None:
        message_id = self._recent.pop()
        status, answer = await self._ask(session, "DELETE", f"/messages/{message_id}")
        if status == 200:
            self._history.deleted_at[message_id] = time.time()
        elif status in (-1, 0, 503):
            # Also if the port refuses: aiohttp repeats a DELETE by itself on a new connection, and
            # reports only how the second try failed; the first may have deleted the message.
            self._history.maybe_deleted.add(message_id)
        else:
            known = (answer.get("code"), status)
            assert known in LEFT_ALONE, (known, message_id)

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and body. 0: no answer, perhaps done; -1: connection refused, not done."""
        url = self._random.choice(self._fleet.replicas).url + path
        try:
            async with session.request(method, url, **more) as answer:
                return answer.status, await answer.json(content_type=None)
        except aiohttp.ClientConnectorError:
            return -1, {}
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0, {}


def _worse(before: Outcome, status: int) -> Outcome:
    return before if status == -1 else "unknown"
