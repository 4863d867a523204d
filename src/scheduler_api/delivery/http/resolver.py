"""The system's resolver in separate threads: silent name servers delay no other name and no exit.

`getaddrinfo` knows /etc/hosts and the names of containers, but it blocks and cannot be interrupted.
So its threads are daemons, for which an exit does not wait, and slow names may use only some of
them. The getaddrinfo of asyncio shares the few threads of the default executor with everything
else (python/cpython#112169).
"""

import asyncio
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from enum import IntEnum
from itertools import chain, islice, zip_longest
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

RESOLVE_TIMEOUT: Final = 10.0  # seconds: the system tries the next name server after 5 s
QUEUE_TIMEOUT: Final = 4.0  # seconds that a lookup waits for a thread
QUICK_LOOKUP: Final = 1.0  # seconds: a name that takes longer is slow
MAX_NAMES: Final = 4096  # remembered, of quick and slow ones each
MAX_ADDRESSES: Final = 4  # tried for a name; fifty without a response would take the whole timeout
HOSTS_FILE: Final = "/etc/hosts"


class Kind(IntEnum):
    """What is known of a name; the lower kind is looked up first."""

    QUICK = 0  # its last lookup was quick, or this machine knows it
    NEW = 1
    SLOW = 2


# Threads for lookups of this kind and all slower kinds together.
MAX_THREADS: Final = {Kind.QUICK: 64, Kind.NEW: 48, Kind.SLOW: 16}


class LookupQueueFull(socket.gaierror):
    """No thread was free for the lookup, so no name server was asked."""


class _Lookup:
    """One call of getaddrinfo, waiting or running."""

    __slots__ = ("answer", "arguments", "began", "host", "kind")

    def __init__(self, host: str, port: int, family: int, kind: Kind) -> None:
        self.host = host
        self.arguments = host, port, family
        self.kind = kind
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[list[ResolveResult]] = loop.create_future()


class Resolver(AbstractResolver):
    """Looks names up in threads that are started when needed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = {kind: deque[_Lookup]() for kind in Kind}
        self._busy = dict.fromkeys(Kind, 0)  # running lookups, each in a thread
        self._threads = 0  # started so far
        self._work: queue.SimpleQueue[_Lookup | None] = queue.SimpleQueue()
        self._known: dict[Kind, dict[str, None]] = {Kind.QUICK: {}, Kind.SLOW: {}}
        self._hosts_file = _HostsFile()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The first addresses of `host`.

        Raises: OSError if it has none, or no name server answers in time; LookupQueueFull.
        """
        lookup = _Lookup(host, port, family, self._kind(host))
        self._waiting[lookup.kind].append(lookup)
        self._begin()
        try:
            await asyncio.wait_for(lookup.began, QUEUE_TIMEOUT)
        except TimeoutError as error:
            raise LookupQueueFull(socket.EAI_AGAIN, "no thread is free for a lookup") from error
        finally:
            if lookup.began.cancelled():
                with suppress(ValueError):  # it was removed meanwhile
                    self._waiting[lookup.kind].remove(lookup)
        try:
            return await asyncio.wait_for(lookup.answer, RESOLVE_TIMEOUT)
        except TimeoutError as error:
            self._note(host, Kind.SLOW)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers") from error

    def waits(self, host: str) -> bool:
        """Whether a lookup of that name has not begun."""
        return any(lookup.host == host for waiting in self._waiting.values() for lookup in waiting)

    async def close(self) -> None:
        """End the threads; one that waits for a name server ends with its answer."""
        for _ in range(self._threads):
            self._work.put(None)

    def _kind(self, host: str) -> Kind:
        if host in self._known[Kind.QUICK] or host in self._hosts_file:
            return Kind.QUICK
        return Kind.SLOW if host in self._known[Kind.SLOW] else Kind.NEW

    def _begin(self) -> None:
        for kind, waiting in self._waiting.items():
            while waiting and self._has_thread(kind):
                lookup = waiting.popleft()
                if lookup.began.done():  # no task waits for it any more
                    continue
                lookup.began.set_result(None)
                self._busy[kind] += 1
                if self._threads < sum(self._busy.values()):
                    self._threads += 1
                    name = f"resolver_{self._threads}"
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                self._work.put(lookup)

    def _has_thread(self, kind: Kind) -> bool:
        """Whether one more thread for this kind keeps every limit of MAX_THREADS."""
        return all(
            sum(self._busy[one] for one in Kind if one >= group) < MAX_THREADS[group]
            for group in Kind
            if group <= kind
        )

    def _serve(self) -> None:
        """The body of a thread: one lookup after the other."""
        while lookup := self._work.get():
            began = time.monotonic()
            found: list[ResolveResult] | Exception
            try:
                found = _resolve(*lookup.arguments)
            except Exception as error:
                found = error
            took = time.monotonic() - began
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._answered, lookup, found, took)

    def _answered(
        self, lookup: _Lookup, found: list[ResolveResult] | Exception, took: float
    ) -> None:
        self._busy[lookup.kind] -= 1
        self._note(lookup.host, Kind.QUICK if took < QUICK_LOOKUP else Kind.SLOW)
        if not lookup.answer.done():  # else no task waits for it any more
            if isinstance(found, Exception):
                lookup.answer.set_exception(found)
            else:
                lookup.answer.set_result(found)
        self._begin()

    def _note(self, host: str, kind: Kind) -> None:
        for other in self._known.values():
            other.pop(host, None)
        known = self._known[kind]
        known[host] = None
        if len(known) > MAX_NAMES:
            del known[next(iter(known))]


class _HostsFile:
    """The names that this machine knows without a name server."""

    def __init__(self) -> None:
        self._names = frozenset[str]()
        self._changed_at = -1  # when the file that was read was changed, ns

    def __contains__(self, host: str) -> bool:
        with suppress(OSError):  # if the file is missing, the names read before stay
            changed_at = os.stat(HOSTS_FILE).st_mtime_ns
            if changed_at != self._changed_at:
                self._names, self._changed_at = _names_in(HOSTS_FILE), changed_at
        return host == "localhost" or host.endswith(".localhost") or host in self._names


def _names_in(path: str) -> frozenset[str]:
    with open(path, errors="replace") as lines:
        return frozenset(
            name.lower() for line in lines for name in line.partition("#")[0].split()[1:]
        )


def _resolve(host: str, port: int, family: int) -> list[ResolveResult]:
    # As bytes: a str would be encoded by Python's IDNA, which raises UnicodeError for long labels
    # (python/cpython#77139). Unicode hosts are already encoded by domain/url.py.
    infos = socket.getaddrinfo(
        host.encode(), port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
    )
    found = (
        ResolveResult(
            hostname=host,
            host=_with_zone(address),
            port=port,
            family=its_family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for its_family, _, protocol, _, address in infos
    )
    return list(_first_few(found))


def _first_few(found: Iterable[ResolveResult]) -> Iterator[ResolveResult]:
    """Alternately of each family, as one of them may have no route."""
    families: dict[int, list[ResolveResult]] = {}
    for one in found:
        families.setdefault(one["family"], []).append(one)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return islice(filter(None, turns), MAX_ADDRESSES)


def _with_zone(address: tuple[str | int | bytes, ...]) -> str:
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]!s}%{zone!s}" if zone else str(address[0])
