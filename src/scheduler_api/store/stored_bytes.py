"""Counts the bytes that this process stores, so that the store's memory is checked in time."""

import asyncio
from typing import Final

CHECK_AFTER: Final = 8 * 1024**2  # bytes stored by this process until the next check
MESSAGE_OVERHEAD: Final = 200  # bytes of a message beside its record, about


class Growth:
    """The bytes stored in all partitions by this process since the last check."""

    def __init__(self) -> None:
        self.bytes = 0
        self.check_due = asyncio.Event()
        self.check_due.set()  # the memory in use at the start is unknown

    def reset(self) -> None:
        """Count from 0 again: a check begins."""
        self.bytes = 0
        self.check_due.clear()
