"""Callers that create messages while a store fails, and what became of the messages."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count

import aiohttp

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import Server

CALLERS = 4
AFTER_REFUSAL = 0.05  # seconds; the minimum pause of a caller after a 503
PATIENCE = 30.0  # seconds until all acknowledged messages have arrived


@dataclass
class Traffic:
    """The calls of several callers, which continue after a 503."""

    acknowledged: list[str] = field(default_factory=list)  # ids that were answered 201
    refused: int = 0  # number of responses with 503

    async def more(self, number: int) -> None:
        """Wait until so many further messages are acknowledged."""
        goal = len(self.acknowledged) + number
        await wait_until(
            f"{number} more messages acknowledged",
            lambda: len(self.acknowledged) >= goal,
            PATIENCE,
        )

    async def call(self, replicas: Sequence[Server], url: str, numbers: Iterator[int]) -> None:
        """Create messages in sequence, through each replica in turn, until cancelled."""
        for number in numbers:
            body = {"id": f"m{number}", "webhookUrl": url, "delay": 0.3}
            try:
                server = replicas[number % len(replicas)]
                status, found, _ = await server.ask("POST", "/messages", body)
            except aiohttp.ClientError as error:
                raise AssertionError("the service itself went away") from error
            assert status in (201, 503), found
            if status == 201:
                self.acknowledged.append(found["messageId"])
            else:
                self.refused += 1
                await asyncio.sleep(AFTER_REFUSAL)


@asynccontextmanager
async def traffic(replicas: Sequence[Server], receiver: Receiver) -> AsyncIterator[Traffic]:
    """Traffic during the block."""
    found, numbers = Traffic(), count()
    callers = [
        asyncio.create_task(found.call(replicas, receiver.url, numbers)) for _ in range(CALLERS)
    ]
    try:
        yield found
    finally:
        for caller in callers:
            caller.cancel()
        ended = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def missing(acknowledged: Sequence[str], receiver: Receiver) -> set[str]:
    """Acknowledged messages that have not arrived after PATIENCE."""

    def left() -> set[str]:
        return set(acknowledged) - set(receiver.ids())

    try:
        await wait_until("all acknowledged messages", lambda: not left(), PATIENCE)
    except AssertionError:
        return left()
    return set()
