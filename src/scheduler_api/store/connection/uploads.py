"""Bounds the bytes that are under way to the store, so that its time-out is about the store alone.

A call that waits behind hundreds of megabytes of our own would time out on the healthiest store.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from scheduler_api.byte_budget import Budget
from scheduler_api.domain.errors import StoreUnavailable

T = TypeVar("T")

CALL_BYTES: Final = 1024**2  # of a call that writes several messages; a single one may be larger
SMALL: Final = 64 * 1024  # bytes of a call that does not wait for others
UNDER_WAY: Final = 4 * CALL_BYTES  # of all larger calls of this process at once


class Uploads:
    """The large calls of all partitions, few at a time."""

    def __init__(self) -> None:
        self._budget = Budget(UNDER_WAY)

    async def run(self, size: int, call: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """The call's reply. Raises: what the call raises; StoreUnavailable.

        When one fails because the store is away, those that wait are refused: nothing of them was
        sent, and each would wait for the same time-out.
        """
        await self._budget.take(size)
        try:
            return await call(*args)
        except StoreUnavailable:
            self._budget.refuse(StoreUnavailable)
            raise
        finally:
            self._budget.give(size)


def calls(items: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Gathers items, in order, into calls of at most `most` of them and CALL_BYTES."""
    call, total = list[T](), 0
    for item in items:
        more = size(item)
        if call and (len(call) == most or total + more > CALL_BYTES):
            yield call
            call, total = [], 0
        call.append(item)
        total += more
    if call:
        yield call
