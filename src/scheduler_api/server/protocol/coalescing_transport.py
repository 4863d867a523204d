"""A connection's transport: a response in one system call, and a close that can be read."""

import asyncio
from collections.abc import Callable


class CoalescingTransport(asyncio.Transport):
    """Joins a response's head and body, which uvicorn writes one after the other.

    The loop sends at once what is written: two system calls here, two packets, two wake-ups there.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        linger: Callable[[], bool],
    ) -> None:
        """`linger`: asked at the close; whether the client may still be sending."""
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._linger = linger
        self._held = b""
        self.lingering = False  # closed for writing; what arrives is discarded
        # Passed on as they are: a method for each would cost what is to be saved.
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.abort = transport.abort  # type: ignore[method-assign]
        self.get_write_buffer_size = transport.get_write_buffer_size  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it after what was held back; or hold it back until the loop's next turn."""
        if self._held:
            self._held += data
            self._flush()
        else:
            self._held = bytes(data)
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        held, self._held = self._held, b""
        # uvloop raises for what is written after the client has closed.
        if held and not self.is_closing():
            self._transport.write(held)

    def close(self) -> None:
        """Close when everything is sent.

        Where the client still sends, only the writing side: a close with unread bytes resets the
        connection, and the client loses the response before it reads it (RFC 9112, section 9.6).
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
