"""All connections of a server: ends those that take too long, makes room when there are too many.

One look a second at all of them: a timer for each request would cost a tenth of what it costs.
"""

import asyncio
import time
from collections import deque
from typing import Any, ClassVar, Final, Protocol
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from scheduler_api.api.http import problem
from scheduler_api.domain.errors import TooManyConnections

TICK: Final = 1.0  # seconds between two looks
SEARCH_SHARE: Final = 0.1  # of the time at most, for searches for connections to close
ALWAYS_ANSWERED: Final = "/health/live"  # else a busy process would be taken for a dead one


class Connection(Protocol):
    """What is to be known of a connection."""

    app: Any  # ASGI
    unfinished: bool  # the clock runs
    discarding: bool  # nothing more is parsed
    ticks: int  # seen while unfinished

    def tick(self) -> None:
        """A second has passed while this connection was unfinished."""

    def watch_sending(self) -> None:
        """A second has passed."""

    @property
    def evictable(self) -> bool:
        """Whether no request is running, so that others may have this connection's place."""

    @property
    def idle_until(self) -> float:
        """When it is closed as idle, by the loop's clock; never: infinite."""

    def evict(self) -> None:
        """Make room for another."""


class Connections:
    """The open connections of one server."""

    _all: ClassVar["WeakKeyDictionary[ServerState, Connections]"] = WeakKeyDictionary()

    def __init__(
        self, state: ServerState, limit: int | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._open: set[Connection] = state.connections  # type: ignore[assignment]
        self._limit = limit
        self._loop = loop
        self._looking = False  # whether a look is to come
        self._evicted: set[Connection] = set()  # which are just being closed
        self._candidates: deque[Connection] = deque()  # to be closed for others, in this order
        self._search_at = float("-inf")  # not before

    @classmethod
    def of(
        cls, state: ServerState, limit: int | None, loop: asyncio.AbstractEventLoop
    ) -> "Connections":
        """Those of this server; `limit`: how many may be open, None: any number."""
        found = cls._all.get(state)
        if found is None:
            found = cls._all[state] = cls(state, limit, loop)
        return found

    def add(self, newcomer: Connection) -> None:
        """Watch it; if there are too many, close some that have nothing to do."""
        if not self._looking:
            self._look_later()
        if not self.crowded:
            return
        for _ in range(self._excess):
            if victim := self._victim(newcomer):
                self._evicted.add(victim)
                victim.evict()
        newcomer.app = _Crowded(self, newcomer.app)
        self._candidates.append(newcomer)

    @property
    def crowded(self) -> bool:
        """Whether there are too many."""
        return self._limit is not None and len(self._open) > self._limit and self._excess > 0

    @property
    def _excess(self) -> int:
        self._evicted &= self._open
        return len(self._open) - len(self._evicted) - (self._limit or 0)

    def _look_later(self) -> None:
        # Only while there are connections: an idle process sleeps.
        self._looking = bool(self._open)
        if self._looking:
            self._loop.call_later(TICK, self._look)

    def _look(self) -> None:
        for one in list(self._open):
            one.watch_sending()
            if one.unfinished:
                one.tick()
        if not self.crowded:
            self._candidates.clear()
        self._look_later()

    def _victim(self, newcomer: Connection) -> "Connection | None":
        now = time.perf_counter()
        if not self._candidates and now >= self._search_at:
            found = [one for one in self._open if one.evictable and one is not newcomer]
            self._candidates.extend(sorted(found, key=_order))
            ended = time.perf_counter()
            self._search_at = ended + (ended - now) / SEARCH_SHARE
        while self._candidates:
            one = self._candidates.popleft()
            if one in self._open and one.evictable and one not in self._evicted:
                return one
        return None


def _order(one: Connection) -> tuple[bool, float, int]:
    """Answered ones before those that owe a request, the longest idle or slowest first."""
    return one.unfinished and not one.discarding, one.idle_until, -one.ticks


class _Crowded:
    """The application for a connection that is one too many."""

    def __init__(self, connections: Connections, app: ASGIApp) -> None:
        self._connections = connections
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, unless there is room again."""
        if self._connections.crowded and not scope["path"].endswith(ALWAYS_ANSWERED):
            await problem(TooManyConnections())(scope, receive, send)
        else:
            await self._app(scope, receive, send)
