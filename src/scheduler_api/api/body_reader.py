"""Bodies of requests, read into a bounded memory."""

from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from scheduler_api.api.http import header
from scheduler_api.byte_budget import ByteBudget
from scheduler_api.domain.errors import MemoryFull, PayloadTooLarge

SMALL: Final = 64 * 1024  # bytes of a body that takes no more than a connection's own buffers
PATIENCE: Final = 10.0  # seconds that a larger one waits for memory, unread, before it is refused
HELD: Final = "scheduler.held"  # in a request's scope: the bytes of the budget that its body holds


async def read_body(request: Request, most: int, budget: ByteBudget) -> bytes:
    """The body, at most `most` bytes, which are given back to the budget with the response.

    Raises: PayloadTooLarge, before it is read whole; MemoryFull.
    """
    announced = int(header(request.scope, b"content-length") or 0)
    if announced > most:
        raise _too_large(most)
    if announced > SMALL:
        await _reserve(request.scope, announced, budget)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > most:
            raise _too_large(most)
        if size > SMALL and not announced:
            _grow(request.scope, size, budget)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _reserve(scope: Scope, size: int, budget: ByteBudget) -> None:
    try:
        await budget.acquire(size, PATIENCE)
    except TimeoutError:
        raise MemoryFull from None
    scope[HELD] = size


def _grow(scope: Scope, size: int, budget: ByteBudget) -> None:
    """Hold as much as has come of a body whose size is not known.

    It does not wait: what waits and holds something may wait for another that does the same.
    """
    held = scope.get(HELD, 0)
    if not budget.grow(held, size - held):
        raise MemoryFull
    scope[HELD] = size


def _too_large(most: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is over {most:,} bytes; see MAX_BODY.")
