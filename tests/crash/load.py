"""Callers that create and cancel, the receiver that takes what is sent; both keep the record."""

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
PAUSE: Final = 0.06  # seconds at the most between two calls of a caller
ASKS: Final = 3  # times that a caller asks when it gets no answer
PATIENCE: Final = aiohttp.ClientTimeout(total=3)
HORIZON: Final = 1.5  # seconds at the most from a create to its time
CANCELS: Final = 0.1  # of the calls
REFUSED: Final = 0.05  # of the requests; they are retried after 5 s
SLOWEST: Final = 0.2  # seconds that the receiver takes at the most

# How a delete ends that deletes nothing: on the wire, or sent; never "no such message".
LEFT_ALONE: Final = (("in_flight", 409), ("message_finished", 404))

Hook = Callable[[str], Awaitable[None]]  # given a message's id


class Sink:
    """Answers most requests with 200; tells its hooks when a request comes and was answered."""

    def __init__(self, history: History, random: random.Random) -> None:
        self.came: Hook | None = None
        self.answered: Hook | None = None
        self._history = history
        self._random = random

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[Receiver]:
        """Until the block ends."""
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
        await asyncio.sleep(self._random.uniform(0, SLOWEST))  # so that something is in flight
        refused = attempt == 1 and self._random.random() < REFUSED
        arrival.status = 500 if refused else 200
        response = web.Response(status=arrival.status)
        await response.prepare(request)
        await response.write_eof()
        if self.answered and not refused:
            await self.answered(message_id)
        return response


class Load:
    """Calls one replica or another, as a balancer would, until it is stopped."""

    def __init__(self, fleet: Fleet, history: History, seed: int, hook: str) -> None:
        self._fleet = fleet
        self._history = history
        self._random = random.Random(seed)  # noqa: S311
        self._hook = hook
        self._stopping = False
        self._recent: list[str] = []  # acknowledged ids, some of which get cancelled

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends."""
        # A connection for each call, as one of a killed replica is of no use.
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
            # Also if nobody listened: the client repeats a DELETE by itself, on new connections
            # too, and tells how the second one failed; the first may have been done.
            self._history.maybe_deleted.add(message_id)
        else:
            known = (answer.get("code"), status)
            assert known in LEFT_ALONE, (known, message_id)

    async def _ask(
        self, session: aiohttp.ClientSession, method: str, path: str, **more: Any
    ) -> tuple[int, dict[str, Any]]:
        """Status and body; 0: no answer, so perhaps done; -1: nobody listens, so not done."""
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
