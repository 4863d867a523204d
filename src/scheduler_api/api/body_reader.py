"""Reads the body of a request within a limit of size and a budget of memory."""

from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Scope

from scheduler_api.api.http import header
from scheduler_api.byte_budget import ByteBudget
from scheduler_api.domain.errors import MemoryFull, PayloadTooLarge

MAX_UNCOUNTED_BODY: Final = 64 * 1024  # bytes; only a larger body takes memory from the budget
MEMORY_TIMEOUT: Final = 10.0  # seconds that a body waits for memory before it is refused
HELD_BYTES: Final = "scheduler.held_bytes"  # in a request's scope: what its body took


async def read_body(request: Request, max_size: int, budget: ByteBudget) -> bytes:
    """The body, at most `max_size` bytes; its memory is returned to the budget after the response.

    Raises: PayloadTooLarge, before all of it is read; MemoryFull.
    """
    length = int(header(request.scope, b"content-length") or 0)  # 0: unknown
    if length > max_size:
        raise _too_large(max_size)
    if length > MAX_UNCOUNTED_BODY:
        await _reserve(request.scope, length, budget)
    chunks, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > max_size:
            raise _too_large(max_size)
        if size > MAX_UNCOUNTED_BODY and not length:
            _grow(request.scope, size, budget)
        more = message.get("more_body", False)
    return b"".join(chunks)


async def _reserve(scope: Scope, size: int, budget: ByteBudget) -> None:
    """Take memory for a body of known size. Raises: MemoryFull."""
    try:
        await budget.acquire(size, MEMORY_TIMEOUT)
    except TimeoutError:
        raise MemoryFull from None
    scope[HELD_BYTES] = size


def _grow(scope: Scope, size: int, budget: ByteBudget) -> None:
    """Take memory for what has arrived of a body of unknown size. Raises: MemoryFull.

    It does not wait: two requests that hold memory and wait for more could wait for each other.
    """
    held = scope.get(HELD_BYTES, 0)
    if not budget.grow(held, size - held):
        raise MemoryFull
    scope[HELD_BYTES] = size


def _too_large(max_size: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is larger than {max_size:,} bytes; see MAX_BODY.")
