"""Connections to the store, and the pools of one server: what ours do differently from redis-py's.

The differences save half of the CPU time that redis-py takes for a call.
"""

from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from functools import cache
from typing import Any, Final, cast

import hiredis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import SentinelConnectionPool

MIN_STORE_SPEED: Final = 4 * 1024**2  # bytes per second; a large command gets more time
# Bytes of a command that the event loop takes at once, without a wait for the server to read.
WRITTEN_AT_ONCE: Final = 32 * 1024


class CallState:
    """What is known of one call while it is open."""

    sending_began = False  # True: a server may have received a part of it, or all


# The call of the current task. Set a new state before a call, and read it afterwards.
CURRENT_CALL: Final[ContextVar[CallState]] = ContextVar(
    "CURRENT_CALL",
    default=CallState(),  # noqa: B039
)


class StoreConnection(AbstractConnection):
    """What every connection to the store does differently from redis-py's.

    It encodes commands with hiredis, gives a large command more time, writes a small one without a
    timer, and notes in CURRENT_CALL that sending began.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._small_timeout = self.socket_timeout or 0.0  # seconds for a small command

    async def send_packed_command(
        self, command: bytes | str | Iterable[bytes], check_health: bool = True
    ) -> None:
        """As AbstractConnection; without `check_health` it is a handshake or a health check."""
        packed = cast("Sequence[bytes]", command)  # every call in redis-py passes a sequence
        if not check_health:
            await super().send_packed_command(packed, check_health=False)
            return
        if not self.is_connected:
            await self.connect_check_health(check_health=False)
        await self.check_health()  # type: ignore[no-untyped-call]
        size = sum(map(len, packed))
        timeout = self._small_timeout + size / MIN_STORE_SPEED
        CURRENT_CALL.get().sending_began = True
        # Before Python 3.12 a write with a timeout is a separate task. A small one cannot wait.
        self.socket_timeout = timeout if size > WRITTEN_AT_ONCE else None
        try:
            await super().send_packed_command(packed, check_health=False)
        finally:
            self.socket_timeout = timeout  # of the reply

    def pack_command(self, *args: Any) -> list[bytes]:
        """The command in RESP. Raises: TypeError for other arguments than text, bytes, numbers."""
        # redis-py's asyncio connections encode in Python, a third of the time of a create, until
        # redis-py #4176 is released.
        name, *rest = args
        words = name.encode().split()  # CLIENT SETINFO has two
        return [hiredis.pack_command((*words, *rest))]


@cache
def extended(connection: type[AbstractConnection]) -> type[AbstractConnection]:
    """A connection class of redis-py with the changes of StoreConnection.

    Built here for each transport (TCP, TLS, Unix socket, Sentinel): redis-py has no hook for them.
    """
    return type(f"Store{connection.__name__}", (StoreConnection, connection), {})


class StorePool(BlockingConnectionPool):
    """The connections to one server; a call waits for a free one if all are in use.

    redis-py locks, sets a timer and counts for metrics at each call; this pool, only when calls
    wait.
    """

    _waiting = 0  # calls

    async def get_connection(self, *_: Any, **__: Any) -> AbstractConnection:
        """A connection for one call. Raises: ConnectionError."""
        if self._waiting or not self.can_get_connection():
            self._waiting += 1
            try:
                return await super().get_connection()  # type: ignore[no-any-return,no-untyped-call]
            finally:
                self._waiting -= 1
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return cast("AbstractConnection", connection)

    async def release(self, connection: AbstractConnection) -> None:
        """Take back a connection after a call."""
        if self._waiting or connection.should_reconnect():  # type: ignore[no-untyped-call]
            await super().release(connection)
            return
        self._in_use_connections.remove(connection)
        self._available_connections.append(connection)


class SentinelPool(SentinelConnectionPool, StorePool):
    """Waits for a free connection, instead of failing when all are in use.

    redis-py has such a pool only for one server; #3433, which asks for it, was closed as stale.
    """
