"""A worker process that receives webhooks and records when each arrived.

python -m bench.receiver [hang] prints its port, then answers "count" (different messages) and
"take" on standard input; with `hang` it reads requests and never answers them.
"""

import asyncio
import os
import sys
import time
from typing import Any

import httptools
import msgspec
import uvloop

from bench.processes import Worker, answer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
POLL = 0.25  # seconds between two checks of the count
LINGER = 1.0  # seconds to wait for duplicates after the last expected arrival


class Arrivals(msgspec.Struct, frozen=True):
    """The arrivals, in order."""

    at_ns: list[int]
    n: list[int]

    @property
    def duplicates(self) -> int:
        """Arrivals beyond the first of each message."""
        return len(self.n) - len(set(self.n))

    def lost(self, count: int) -> int:
        """Number of messages 0 … count − 1 that never arrived."""
        return count - len(set(self.n))

    @property
    def span(self) -> float:
        """Seconds from the first arrival to the last."""
        return (max(self.at_ns) - min(self.at_ns)) / 1e9 if self.at_ns else 0.0

    @property
    def rate(self) -> float:
        """Arrivals a second, between the first and the last."""
        return len(self.n) / self.span if self.span else 0.0

    def lateness_ms(self, due_ms: list[int]) -> list[float]:
        """Arrival − due of each message, ascending; negative: early."""
        each = zip(self.at_ns, self.n, strict=True)
        return sorted(at / 1e6 - due_ms[n] for at, n in each)


class Receiver(Worker):
    """The receiver's process, for the process that measures."""

    def __init__(self, *mode: str) -> None:
        super().__init__("bench.receiver", *mode)
        self.hook = f"http://127.0.0.1:{self.read()}/hook"

    def collect(self, count: int, patience: float) -> Arrivals:
        """Wait for `count` messages, or until none arrived for `patience` seconds; then reset."""
        seen, moved = 0, time.monotonic()
        while seen < count and time.monotonic() - moved < patience:
            time.sleep(POLL)
            now = int(self.ask("count"))
            if now != seen:
                seen, moved = now, time.monotonic()
        time.sleep(LINGER)
        return msgspec.convert(self.ask("take"), Arrivals)


class _Protocol(asyncio.Protocol):
    """One connection; the parser calls the on_ methods."""

    def __init__(self, arrivals: Arrivals, seen: set[int], answer: bytes) -> None:
        self._note_at, self._note_n = arrivals.at_ns.append, arrivals.n.append
        self._see, self._answer = seen.add, answer
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._note_at(time.time_ns())
        self._transport.write(self._answer)
        body, self._body = self._body, b""
        start = body.index(b'"n":') + 4
        n = int(body[start : body.index(b",", start)])
        self._note_n(n)
        self._see(n)


async def _serve(reply: bytes) -> None:
    loop, arrivals, seen = asyncio.get_running_loop(), Arrivals([], []), set[int]()
    server = await loop.create_server(
        lambda: _Protocol(arrivals, seen, reply), "127.0.0.1", 0, backlog=4096
    )
    answer(server.sockets[0].getsockname()[1])
    ended = asyncio.Event()

    def asked() -> None:
        question = os.read(0, 100)
        if question.startswith(b'"count'):
            answer(len(seen))
        elif question.startswith(b'"take'):
            answer(arrivals)
            arrivals.at_ns.clear()
            arrivals.n.clear()
            seen.clear()
        else:
            ended.set()

    loop.add_reader(0, asked)
    await ended.wait()


if __name__ == "__main__":
    uvloop.run(_serve(b"" if sys.argv[1:] == ["hang"] else OK))
