"""A connection to a receiver: aiohttp's connector makes and keeps it, the answers are read here."""

import asyncio

from aiohttp.client_proto import ResponseHandler

from scheduler_api.delivery.http.response import ResponseReader


class ResponseProtocol(ResponseHandler):
    """Carries one request after the other; aiohttp's own parser is used only by its proxies.

    No exception is kept here: its traceback would keep the frames it passed through, and with them
    the request, until the garbage collector looks.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self.used = False  # whether it has carried a request
        self._reader: ResponseReader | None = None  # of the open exchange
        self._reusable = True
        self._exchanged: asyncio.Future[None] | None = None  # done when nothing more is to be read

    @property
    def should_close(self) -> bool:
        """Whether it may carry no further request."""
        return not self._reusable or super().should_close

    async def exchange(self, data: bytes, reader: ResponseReader) -> None:
        """Send a request and read its answer, to its end or to the connection's."""
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
        """Read on; what nobody asked for ends the connection, or it would be the next answer."""
        reader = self._reader
        if reader is not None:
            if reader.feed(data):
                self._finish(reader)
        elif self._parser is not None:
            super().data_received(data)
        else:
            self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """The answer ends here, whether it is whole or not."""
        if self._reader is not None:
            self._reader.end()
            self._finish(self._reader)
        super().connection_lost(exc)

    def _finish(self, reader: ResponseReader) -> None:
        self._reader, self._reusable = None, reader.reusable
        if self._exchanged is not None and not self._exchanged.done():  # it is, of a cancelled task
            self._exchanged.set_result(None)
