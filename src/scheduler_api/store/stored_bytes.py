"""How much has been stored since somebody looked how full the store is."""

import asyncio
from typing import Final

LOOK_AFTER: Final = 8 * 1024**2  # bytes stored by this process until the next look
BESIDE: Final = 200  # bytes of a message beside its record, about


class Growth:
    """Of all partitions, by this process."""

    def __init__(self) -> None:
        self.bytes = 0
        self.much = asyncio.Event()  # set: it is time to look
        self.much.set()  # what the store has from before is not known

    def looked(self) -> None:
        """Count anew."""
        self.bytes = 0
        self.much.clear()
