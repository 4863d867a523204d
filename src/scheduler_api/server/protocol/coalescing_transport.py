"""A connection's transport: sends a response in one system call, and closes without a reset."""

import asyncio
from collections.abc import Callable


class CoalescingTransport(asyncio.Transport):
    """Joins the head and the body of a response, which uvicorn writes one after the other.

    The event loop sends each write at once: two system calls, two packets, two wake-ups of the
    client. aiohttp joins them since 3.12 (its pull request 10991); uvicorn 0.54 does not.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        linger: Callable[[], bool],
    ) -> None:
        """`linger`: called at the close; returns whether the client may still be sending."""
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._linger = linger
        self._held = b""
        self.lingering = False  # closed for writing only; what arrives is discarded
        # The transport's own methods: a wrapper for each would cost the time that is saved here.
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it together with held data; without any, hold it until the loop's next iteration."""
        if self._held:
            self._held += data
            self._flush()
        else:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        held, self._held = self._held, b""
        # uvloop raises for a write after the client has closed.
        if held and not self.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Close when everything is sent.

        If the client is still sending, close only the writing side: a close with unread bytes
        resets the connection, and the client may lose the response (RFC 9112, section 9.6).
        """
        self._flush()
        if self.lingering:
            return
        if self.is_closing() or not self._linger() or not self._transport.can_write_eof():
            self._transport.close()
            return
        self.lingering = True
        self.is_closing = lambda: True  # type: ignore[method-assign]
        self._transport.write_eof()
