"""A worker process that creates messages as fast as the server accepts them.

python -m bench.create_load reads a line of JSON, a Batch, and prints a Load.
"""

import asyncio
import re
import sys
import time
from collections import Counter
from typing import Any

import httptools
import msgspec
import uvloop

from bench.payloads import batch as together
from bench.payloads import message, request
from bench.processes import Worker, answer
from bench.server import Target

RESULT = re.compile(rb'"status":(\d+),"body"')  # result of one message, in the response to a batch


class Batch(msgspec.Struct, frozen=True):
    """What to create: message n is due at due_ms[n]."""

    host: str
    port: int
    token: str
    prefix: str  # of the message ids
    hook: str  # their webhookUrl
    due_ms: list[int]
    connections: int = 64
    together: int = 1  # messages in a request; more than 1: POST /messages/batch


class Load(msgspec.Struct):
    """The result of a batch; all requests count, the first ones too."""

    rate: float  # messages a second, from the first byte sent to the last response
    p50_ms: float  # of a response
    p99_ms: float
    statuses: dict[int, int]  # status → number of messages
    client_cpu_s: float
    cpu_s: tuple[float, float] | None = None  # of the server and of its store meanwhile

    @property
    def refused(self) -> int:
        """Messages with a status other than 201."""
        return sum(self.statuses.values()) - self.statuses.get(201, 0)


def load(
    target: Target,
    prefix: str,
    hook: str,
    due_ms: list[int],
    *,
    connections: int = 64,
    together: int = 1,
) -> Load:
    """Create a batch from a worker process."""
    before = target.cpu()
    with Worker("bench.create_load") as worker:
        batch = Batch(
            target.host, target.port, target.token, prefix, hook, due_ms, connections, together
        )
        made = msgspec.convert(worker.ask(batch), Load, strict=False)
    after = target.cpu()
    if before and after:
        made.cpu_s = after[0] - before[0], after[1] - before[1]
    return made


def percentile(ascending: list[float], part: float) -> float:
    """The smallest value that the share `part` does not exceed; 0 if there are none."""
    place = max(0, -int(-part * len(ascending) // 1) - 1)
    return round(ascending[place], 3) if ascending else 0.0


class _Run:
    """The state of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.requests = iter(_requests(batch))
        self.together = batch.together
        self.statuses: Counter[int] = Counter()
        self.times: list[float] = []  # seconds
        self.open = batch.connections
        self.ended = asyncio.Event()

    def note(self, status: int, body: bytes) -> None:
        """Count a response; a batch's response has a status for each message."""
        if status == 200:
            self.statuses.update(map(int, RESULT.findall(body)))
        else:
            self.statuses[status] += self.together

    def leave(self) -> None:
        """A connection is done."""
        self.open -= 1
        if not self.open:
            self.ended.set()


class _Caller(asyncio.Protocol):
    """One keep-alive connection: a request, its response, the next request."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def next(self) -> None:
        request = next(self._run.requests, None)
        if request is None:
            self._run.leave()
            return
        self._sent = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self._run.times.append(time.perf_counter() - self._sent)
        status, body, self._body = self._parser.get_status_code(), self._body, b""
        self._run.note(status, body)
        self.next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._run.ended.is_set():
            sys.exit(f"the server closed a connection: {error!r}")


async def _create(batch: Batch) -> Load:
    loop, run = asyncio.get_running_loop(), _Run(batch)
    made = [
        await loop.create_connection(lambda: _Caller(run), batch.host, batch.port)
        for _ in range(batch.connections)
    ]
    began, cpu = time.perf_counter(), time.process_time()
    for _, caller in made:
        caller.next()
    await run.ended.wait()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    times = sorted(1000 * taken for taken in run.times)
    p50, p99 = percentile(times, 0.5), percentile(times, 0.99)
    rate = round(run.statuses.total() / seconds, 1)
    return Load(rate, p50, p99, dict(run.statuses), round(cpu, 3))


def _requests(batch: Batch) -> list[bytes]:
    """All requests, encoded beforehand."""
    host, token, size = f"{batch.host}:{batch.port}", batch.token, batch.together
    bodies = [message(n, batch.prefix, batch.hook, due) for n, due in enumerate(batch.due_ms)]
    if size == 1:
        return [request(body, host, token) for body in bodies]
    groups = (bodies[start : start + size] for start in range(0, len(bodies), size))
    return [request(together(group), host, token, "/messages/batch") for group in groups]


if __name__ == "__main__":
    answer(uvloop.run(_create(msgspec.json.decode(sys.stdin.buffer.readline(), type=Batch))))
