"""Limits the bytes that this process sends to the store at the same time.

Otherwise a call behind hundreds of megabytes would time out, although the store is healthy.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from scheduler_api.byte_budget import ByteBudget
from scheduler_api.domain.errors import StoreUnavailable

T = TypeVar("T")

CALL_BYTES: Final = 1024**2  # in a call with several messages; a single message may be larger
SMALL_CALL: Final = 64 * 1024  # bytes; up to this size, a call does not wait for others
MAX_UPLOAD: Final = 4 * CALL_BYTES  # bytes of all larger calls of this process that are open


class Uploads:
    """Runs the large calls of all partitions, within MAX_UPLOAD."""

    def __init__(self) -> None:
        self._budget = ByteBudget(MAX_UPLOAD)

    async def run(self, size: int, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """The result of the call. Raises: what the call raises; StoreUnavailable.

        When a call fails with StoreUnavailable, the waiting calls are refused: nothing of them was
        sent, and each would wait for the same timeout.
        """
        await self._budget.acquire(size)
        try:
            return await call(*args)
        except StoreUnavailable:
            self._budget.fail_waiting(StoreUnavailable)
            raise
        finally:
            self._budget.release(size)


def split_calls(items: Iterable[T], size: Callable[[T], int], max_items: int) -> Iterator[list[T]]:
    """Splits items, in order, into calls of at most `max_items` items and CALL_BYTES."""
    call, total = list[T](), 0
    for item in items:
        more = size(item)
        if call and (len(call) == max_items or total + more > CALL_BYTES):
            yield call
            call, total = [], 0
        call.append(item)
        total += more
    if call:
        yield call
