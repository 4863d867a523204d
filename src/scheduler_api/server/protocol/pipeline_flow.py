"""Flow control of a connection with pipelined requests."""

import asyncio
from collections.abc import Sized

from uvicorn.protocols.http.flow_control import FlowControl


class PipelineFlow(FlowControl):
    """Reads no more while requests wait for the response to an earlier one.

    uvicorn resumes reading after each response, so it reads one packet full of small requests for
    each of them. A client that sends them faster than it gets responses would fill the memory.
    No upstream issue is known.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        """Resume if at most one request waits: uvicorn calls this just before it runs that one,
        which may need the rest of its body."""
        if self.read_paused and len(self._waiting) <= 1:
            super().resume_reading()
