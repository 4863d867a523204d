"""The way out: a connector that judges every address it dials.

Asked by the transport; what may be dialled is decided in domain/destination.py.
"""

import asyncio
import errno
import socket
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar, Token
from itertools import chain, islice, zip_longest
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from scheduler_api.domain.destination import EgressRules

# Names resolved at one time; a dozen slow ones must not hold up a good one.
RESOLVER_THREADS = 64

# How long an answer is waited for, in seconds: the system gives up a dead name server after 5 s
# and asks the next.
RESOLVE_TIMEOUT = 10.0

# Addresses of a name that are tried: with fifty dead ones an attempt would dial to its end.
MOST_ADDRESSES = 4

# How long a connection is kept for the next request, in seconds: less than the 5 s after which
# many servers close, so that a request seldom meets a connection that is just going.
KEEP_ALIVE = 4.0

# How long an answer of the resolver is believed, in seconds.
DNS_TTL = 10

# Why no socket could be made, though the destination may be well.
SHORTAGE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Verdict:
    """What the guard found in one attempt; a context, entered around the request.

    aiohttp copies context variables into the tasks that race for a connection, so these share the
    object. The exception that the guard raises is no witness: aiohttp folds several into another.
    """

    __slots__ = ("_token", "dialled", "host", "opened", "refusal", "starved")

    _token: "Token[Verdict]"  # gives the context variable back what it held before

    def __init__(self, host: str) -> None:
        self.host = host  # the name asked for
        self.dialled = False  # whether any address was let through
        self.refusal: str | None = None  # why nothing was dialled, if that was the guard's doing
        self.opened = False  # whether any socket was made, so that a request may have gone out
        self.starved = False  # whether this machine had no socket left for an address

    def __enter__(self) -> Self:
        self._token = _verdict.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _verdict.reset(self._token)

    def judge(self, rules: EgressRules, address: str, port: int) -> None:
        """Let the address through or raise PermissionError, and remember which."""
        refusal = rules.refusal(address, port, self.host)
        if refusal is None:
            self.dialled, self.refusal = True, None
            return
        if not self.dialled:
            self.refusal = self.refusal or refusal
        raise PermissionError(errno.EACCES, refusal)


_verdict: ContextVar[Verdict] = ContextVar("verdict")


def guarding(host: str) -> Verdict:
    """`with guarding(url.host) as verdict:` around one request to that host; if it fails,
    `verdict.refusal` tells why it was not sent."""
    return Verdict(host)


class GuardedConnector(aiohttp.TCPConnector):
    """Judges each address just before it is dialled, whether resolved or written in the URL."""

    def __init__(self, rules: EgressRules) -> None:
        self._rules = rules
        self._own_resolver = PooledResolver()
        super().__init__(
            limit=0,  # the dispatcher's slots are the limit
            keepalive_timeout=KEEP_ALIVE,
            ttl_dns_cache=DNS_TTL,
            # Named, or an aiodns that happens to be installed would resolve, blind to the names
            # of containers.
            resolver=self._own_resolver,
            # The only place that sees every address: a resolver is never asked about literals.
            socket_factory=self._open,
        )

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close connections and resolver; aiohttp closes only a resolver that it made itself."""
        await super().close(abort_ssl=abort_ssl)
        await self._own_resolver.close()

    def _open(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        # Outside of `guarding` no host is known, and no rule for hosts applies.
        verdict = _verdict.get(None) or Verdict("")
        verdict.judge(self._rules, str(address[0]), int(address[1]))
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            verdict.starved |= error.errno in SHORTAGE
            raise
        verdict.opened = True
        return made


def out_of_sockets() -> bool:
    """Whether none can be made: then a name that was not resolved may well exist."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in SHORTAGE
    return False


class PooledResolver(AbstractResolver):
    """The system's resolver on threads of its own; the loop's default pool has six on two cores."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The first addresses of `host`; OSError if it has none, or nobody answers in time."""
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(self._pool, _resolve, host, port, family)
        try:
            return await asyncio.wait_for(asked, RESOLVE_TIMEOUT)
        except TimeoutError as error:
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers") from error

    async def close(self) -> None:
        """Let the threads go; one that waits for a name server ends with its answer."""
        self._pool.shutdown(wait=False, cancel_futures=True)


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
    return islice(filter(None, turns), MOST_ADDRESSES)


def _with_zone(address: tuple[str | int | bytes, ...]) -> str:
    zone = address[3] if len(address) == 4 else 0
    return f"{address[0]!s}%{zone!s}" if zone else str(address[0])
