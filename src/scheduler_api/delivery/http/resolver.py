"""The system's resolver on threads of our own; silent name servers delay no other name and no exit.

`getaddrinfo` knows /etc/hosts and the names of containers, but it blocks, and nothing interrupts
it. So its threads are daemons, which an exit does not wait for, and names that it does not answer
quickly may have only some of them.
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

RESOLVE_TIMEOUT = 10.0  # seconds: the system asks the next name server when one is silent for 5 s
BEGIN_TIMEOUT = 4.0  # seconds that a lookup waits for a thread
QUICK: Final = 1.0  # seconds: a name that takes longer is a slow one
NAMES_KNOWN: Final = 4096  # quick and slow ones each
MAX_ADDRESSES = 4  # of a name that are tried: with fifty dead ones an attempt would dial to its end
HOSTS_FILE: Final = "/etc/hosts"


class Kind(IntEnum):
    """What is known of a name, the first to be looked up first."""

    QUICK = 0  # was answered quickly, or this machine knows it
    NEW = 1
    SLOW = 2


# Threads that lookups of a kind, and of the kinds after it, may have together.
THREADS: Final = {Kind.QUICK: 64, Kind.NEW: 48, Kind.SLOW: 16}


class NeverBegan(socket.gaierror):
    """No thread was free for the lookup, so nobody was asked for the name."""


class _Lookup:
    """One call of getaddrinfo, to come or under way."""

    __slots__ = ("answer", "arguments", "began", "host", "kind")

    def __init__(self, host: str, port: int, family: int, kind: Kind) -> None:
        self.host = host
        self.arguments = host, port, family
        self.kind = kind
        loop = asyncio.get_running_loop()
        self.began: asyncio.Future[None] = loop.create_future()
        self.answer: asyncio.Future[list[ResolveResult]] = loop.create_future()


class Resolver(AbstractResolver):
    """Looks names up on threads that are started as they are needed."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting = {kind: deque[_Lookup]() for kind in Kind}
        self._busy = dict.fromkeys(Kind, 0)  # threads
        self._threads = 0  # that were started
        self._work: queue.SimpleQueue[_Lookup | None] = queue.SimpleQueue()
        self._known: dict[Kind, dict[str, None]] = {Kind.QUICK: {}, Kind.SLOW: {}}
        self._machine = _HostsFile()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The first addresses of `host`.

        Raises: OSError if it has none or nobody answers in time; NeverBegan if nobody was asked.
        """
        lookup = _Lookup(host, port, family, self._kind(host))
        self._waiting[lookup.kind].append(lookup)
        self._begin()
        try:
            await asyncio.wait_for(lookup.began, BEGIN_TIMEOUT)
        except TimeoutError as error:
            raise NeverBegan(socket.EAI_AGAIN, "no thread is free for a lookup") from error
        finally:
            if lookup.began.cancelled():
                with suppress(ValueError):  # it was passed over
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
        """Let the threads go; one that waits for a name server ends with its answer."""
        for _ in range(self._threads):
            self._work.put(None)

    def _kind(self, host: str) -> Kind:
        if host in self._known[Kind.QUICK] or host in self._machine:
            return Kind.QUICK
        return Kind.SLOW if host in self._known[Kind.SLOW] else Kind.NEW

    def _begin(self) -> None:
        for kind, waiting in self._waiting.items():
            while waiting and self._has_thread(kind):
                lookup = waiting.popleft()
                if lookup.began.done():  # whoever waited for it has left
                    continue
                lookup.began.set_result(None)
                self._busy[kind] += 1
                if self._threads < sum(self._busy.values()):
                    self._threads += 1
                    name = f"resolver_{self._threads}"
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                self._work.put(lookup)

    def _has_thread(self, kind: Kind) -> bool:
        """Whether no group of kinds would have more threads than it may."""
        return all(
            sum(self._busy[one] for one in Kind if one >= group) < THREADS[group]
            for group in Kind
            if group <= kind
        )

    def _serve(self) -> None:
        """What a thread does: one lookup after the other."""
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
        self._note(lookup.host, Kind.QUICK if took < QUICK else Kind.SLOW)
        if not lookup.answer.done():  # else nobody waits for it any longer
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
        if len(known) > NAMES_KNOWN:
            del known[next(iter(known))]


class _HostsFile:
    """The names that this machine knows without asking anybody."""

    def __init__(self) -> None:
        self._names = frozenset[str]()
        self._read_at = -1  # the file's change, ns

    def __contains__(self, host: str) -> bool:
        with suppress(OSError):  # without the file, what was read before stays
            changed_at = os.stat(HOSTS_FILE).st_mtime_ns
            if changed_at != self._read_at:
                self._names, self._read_at = _names_in(HOSTS_FILE), changed_at
        return host == "localhost" or host.endswith(".localhost") or host in self._names


def _names_in(path: str) -> frozenset[str]:
    with open(path, errors="replace") as lines:
        return frozenset(
            name.lower() for line in lines for name in line.partition("#")[0].split()[1:]
        )


def _resolve(host: str, port: int, family: int) -> list[ResolveResult]:
    # As bytes: from a str, Python's own IDNA raises UnicodeError on labels it dislikes.
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
    return list(_few(found))


def _few(found: Iterable[ResolveResult]) -> Iterator[ResolveResult]:
    """Of each family in turn, as one of them may lead nowhere."""
    families: dict[int, list[ResolveResult]] = {}
    for one in found:
        families.setdefault(one["family"], []).append(one)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return islice(filter(None, turns), MAX_ADDRESSES)


def _with_zone(address: tuple[str | int | bytes, ...]) -> str:
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]!s}%{zone!s}" if zone else str(address[0])
