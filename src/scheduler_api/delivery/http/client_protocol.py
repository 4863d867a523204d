"""A connection to a receiver: aiohttp's connector makes and pools it, responses are read here.

A subclass of aiohttp's protocol, as aiohttp lets nobody replace or configure its response parser
(aio-libs/aiohttp#2988). It can go when a connector accepts a protocol class.
"""

import asyncio

from aiohttp.client_proto import ResponseHandler

from scheduler_api.delivery.http.response import ResponseReader


class ResponseProtocol(ResponseHandler):
    """Carries one request after the other; only responses of a proxy to CONNECT are aiohttp's.

    It keeps no exception: its traceback would keep the frames it passed through, and so the
    request, until the garbage collector runs.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.used = False  # whether it has carried a request
        self._reader: ResponseReader | None = None  # of the open exchange
        self._reusable = True
        self._exchanged: asyncio.Future[None] | None = None  # done when the response has ended

    @property
    def should_close(self) -> bool:
        """Whether it cannot carry another request."""
        return not self._reusable or super().should_close

    async def exchange(self, data: bytes, reader: ResponseReader) -> None:
        """Send a request; read its response, until it or the connection ends."""
        self._reusable = False
        if self.transport is None:
            return
        self._reader, self._exchanged = reader, self._loop.create_future()
        self.transport.write(data)
        try:
            await self._exchanged
        finally:
            self._reader = self._exchanged = None

    def data_received(self, data: bytes) -> None:
        """Read the response; abort if none is open: the bytes would begin the next response."""
        reader = self._reader
        if reader is not None:
            if reader.feed(data):
                self._finish(reader)
        elif self._parser is not None:
            super().data_received(data)
        else:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The response has ended, complete or not."""
        if self._reader is not None:
            self._reader.end()
            self._finish(self._reader)
        super().connection_lost(exc)

    def _finish(self, reader: ResponseReader) -> None:
        self._reader, self._reusable = None, reader.reusable
        if (
            self._exchanged is not None and not self._exchanged.done()
        ):  # it is done if the task was cancelled
            self._exchanged.set_result(None)
