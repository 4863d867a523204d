"""The way out: a connector that judges every address it dials.

Asked by the transport; what may be dialled is decided in domain/egress.py.
"""

import errno
import socket
import ssl
from contextvars import ContextVar, Token
from heapq import nsmallest
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from scheduler_api.delivery.http.resolver import Resolver
from scheduler_api.domain.egress import EgressRules

# How long a connection is kept for the next request, in seconds: less than the 5 s after which
# many servers close, so that a request seldom meets a connection that is just going.
KEEP_ALIVE = 4.0

# How long an answer of the resolver is believed, in seconds.
DNS_TTL = 10

# Connections that are open or kept, unless the process may have more or fewer.
CONNECTIONS = 1024

# This part of the connections is closed at once when no more may be open.
ROOM = 16

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


def current_verdict() -> Verdict:
    """Of the attempt under way; outside of `guarding` no host is known, and no host rule holds."""
    return _verdict.get(None) or Verdict("")


def guarding(host: str) -> Verdict:
    """`with guarding(url.host) as verdict:` around one request to that host; if it fails,
    `verdict.refusal` tells why it was not sent."""
    return Verdict(host)


class GuardedConnector(aiohttp.TCPConnector):
    """Judges each address just before it is dialled, whether resolved or written in the URL."""

    def __init__(
        self,
        rules: EgressRules,
        trust: ssl.SSLContext | None = None,
        *,
        connections: int = CONNECTIONS,
    ) -> None:
        """`trust`: the certificates of receivers; None: of the system.

        `connections`: how many may be open, those that are kept included.
        """
        self._rules = rules
        self._connections = connections
        self._made = 0  # sockets since the connections were counted, and their number then
        self._own_resolver = Resolver()
        super().__init__(
            limit=0,  # the dispatcher's slots are the limit
            ssl=trust or True,
            keepalive_timeout=KEEP_ALIVE,
            ttl_dns_cache=DNS_TTL,
            # Named, or an aiodns that happens to be installed would resolve, blind to the names
            # of containers.
            resolver=self._own_resolver,
            # The only place that sees every address: a resolver is never asked about literals.
            socket_factory=self._open,
        )

    def _make_room(self) -> None:
        idle = self._count_idle()
        count = len(self._acquired) + idle  # with those that are being dialled
        if count > self._connections:
            # Some more, as a socket is closed only in the next turn of the loop.
            closed = min(idle, count - self._connections + self._connections // ROOM)
            self._close_oldest(closed)
            count -= closed
        self._made = count

    def _count_idle(self) -> int:
        return sum(map(len, self._conns.values()))

    def _close_oldest(self, count: int) -> None:
        ages = [(since, key) for key, kept in self._conns.items() for _, since in kept]
        for _, key in nsmallest(count, ages, key=itemgetter(0)):
            protocol, _ = self._conns[key].popleft()
            protocol.close()
            if not self._conns[key]:
                del self._conns[key]

    def waits_for_lookup(self, host: str) -> bool:
        """Whether a lookup of that name waits for its turn."""
        return self._own_resolver.waits(host)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close connections and resolver; aiohttp closes only a resolver that it made itself."""
        await super().close(abort_ssl=abort_ssl)
        await self._own_resolver.close()

    def _open(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        verdict = current_verdict()
        self._judge(verdict, str(address[0]), int(address[1]))
        self._made += 1
        if self._made > self._connections:
            self._make_room()
        try:
            made = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno in SHORTAGE:
                verdict.starved = True
                self._close_oldest(self._count_idle())
            raise
        verdict.opened = True
        return made

    def _judge(self, verdict: Verdict, address: str, port: int) -> None:
        verdict.judge(self._rules, address, port)


def trusting(ca_file: Path) -> ssl.SSLContext:
    """Trusts the certificates in that file, too. Raises: OSError (ssl.SSLError is one)."""
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    context.set_alpn_protocols(("http/1.1",))
    return context


def out_of_sockets() -> bool:
    """Whether none can be made: then a name that was not resolved may well exist."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in SHORTAGE
    return False
