"""All connections of a server: ends slow ones, and closes some when there are too many.

All are checked once a second. A timer for each request was rejected: it would cost a tenth of the
request's time.
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

TICK: Final = 1.0  # seconds between two checks
MAX_SEARCH_SHARE: Final = 0.1  # of the time; spent on searches for connections to close
ALWAYS_ANSWERED: Final = "/health/live"  # else a busy process would seem dead


class Connection(Protocol):
    """What Connections needs of a connection."""

    app: Any  # ASGI
    unfinished: bool  # ticks count
    discarding: bool  # what arrives is dropped
    ticks: int  # slow ones while unfinished

    def tick(self) -> None:
        """Called once a second while it is unfinished."""

    def check(self) -> None:
        """Called once a second."""

    @property
    def evictable(self) -> bool:
        """Whether no request is running, so that it may be closed to make room."""

    @property
    def idle_until(self) -> float:
        """When it will be closed as idle, loop time; infinity: never."""

    def evict(self) -> None:
        """Close it to make room for another connection."""


class Connections:
    """The open connections of one server."""

    _all: ClassVar["WeakKeyDictionary[ServerState, Connections]"] = WeakKeyDictionary()

    def __init__(
        self, state: ServerState, limit: int | None, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._open: set[Connection] = state.connections  # type: ignore[assignment]
        self._limit = limit
        self._loop = loop
        self._check_scheduled = False
        self._evicted: set[Connection] = set()  # being closed now
        self._candidates: deque[Connection] = deque()  # to be closed next, in this order
        self._search_at = float("-inf")  # earliest time of the next search, perf_counter

    @classmethod
    def of(
        cls, state: ServerState, limit: int | None, loop: asyncio.AbstractEventLoop
    ) -> "Connections":
        """The connections of this server; `limit`: how many may be open, None: any number."""
        found = cls._all.get(state)
        if found is None:
            found = cls._all[state] = cls(state, limit, loop)
        return found

    def add(self, newcomer: Connection) -> None:
        """Add a new connection; if there are too many, close some that have no running request."""
        if not self._check_scheduled:
            self._schedule_check()
        if not self.over_limit:
            return
        for _ in range(self._excess):
            if victim := self._victim(newcomer):
                self._evicted.add(victim)
                victim.evict()
        newcomer.app = _OverLimit(self, newcomer.app)
        self._candidates.append(newcomer)

    @property
    def over_limit(self) -> bool:
        """Whether there are too many connections."""
        return self._limit is not None and len(self._open) > self._limit and self._excess > 0

    @property
    def _excess(self) -> int:
        self._evicted &= self._open
        return len(self._open) - len(self._evicted) - (self._limit or 0)

    def _schedule_check(self) -> None:
        # Only while there are connections, so that an idle process sleeps.
        self._check_scheduled = bool(self._open)
        if self._check_scheduled:
            self._loop.call_later(TICK, self._check)

    def _check(self) -> None:
        for one in list(self._open):
            one.check()
            if one.unfinished:
                one.tick()
        if not self.over_limit:
            self._candidates.clear()
        self._schedule_check()

    def _victim(self, newcomer: Connection) -> "Connection | None":
        now = time.perf_counter()
        if not self._candidates and now >= self._search_at:
            found = [one for one in self._open if one.evictable and one is not newcomer]
            self._candidates.extend(sorted(found, key=_order))
            ended = time.perf_counter()
            self._search_at = ended + (ended - now) / MAX_SEARCH_SHARE
        while self._candidates:
            one = self._candidates.popleft()
            if one in self._open and one.evictable and one not in self._evicted:
                return one
        return None


def _order(one: Connection) -> tuple[bool, float, int]:
    """Connections with a complete request first; of these the longest idle, else the slowest."""
    return one.unfinished and not one.discarding, one.idle_until, -one.ticks


class _OverLimit:
    """The application for a connection above the limit."""

    def __init__(self, connections: Connections, app: ASGIApp) -> None:
        self._connections = connections
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, unless the number is below the limit again."""
        if self._connections.over_limit and not scope["path"].endswith(ALWAYS_ANSWERED):
            await problem(TooManyConnections())(scope, receive, send)
        else:
            await self._app(scope, receive, send)
