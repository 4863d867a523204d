"""A connector that checks every address against the egress rules before it connects.

The rules themselves are in domain/egress.py.
"""

import errno
import socket
import ssl
from contextvars import ContextVar, Token
from heapq import nsmallest
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp

from scheduler_api.delivery.http.resolver import Resolver
from scheduler_api.domain.egress import EgressRules

# Idle connections are kept for this long, s: less than the 5 s after which many servers close them,
# so that a request seldom meets a connection that is just being closed.
KEEP_ALIVE: Final = 4.0
DNS_TTL: Final = 10  # seconds that resolved addresses are cached
MAX_CONNECTIONS: Final = 1024  # open and idle ones, by default
CLOSE_SHARE: Final = 16  # 1/16 of the connections is closed at once when there are too many

# No socket could be created; this says nothing about the destination.
SHORTAGE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class EgressReport:
    """What the connector found in one attempt; a context, entered around the request.

    A context variable, because aiohttp copies these into the tasks that race for a connection. An
    exception cannot carry the finding: aiohttp merges several into one.
    """

    __slots__ = ("_token", "allowed", "host", "opened", "out_of_sockets", "refusal")

    _token: "Token[EgressReport]"  # restores the context variable

    def __init__(self, host: str) -> None:
        self.host = host  # of the URL
        self.allowed = False  # whether any address was allowed
        self.refusal: str | None = None  # why no address was allowed; None: one was, or none found
        self.opened = False  # whether any socket was created, so that a request may have been sent
        self.out_of_sockets = False  # whether this machine had no socket left for an address

    def __enter__(self) -> Self:
        self._token = _report.set(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _report.reset(self._token)

    def check(self, rules: EgressRules, address: str, port: int) -> None:
        """Note whether the address is allowed. Raises: PermissionError if it is not."""
        refusal = rules.refusal(address, port, self.host)
        if refusal is None:
            self.allowed, self.refusal = True, None
            return
        if not self.allowed:
            self.refusal = self.refusal or refusal
        raise PermissionError(errno.EACCES, refusal)


_report: ContextVar[EgressReport] = ContextVar("report")


def current_report() -> EgressReport:
    """Of the attempt under way; if there is none, a report of no host, to which no rule applies."""
    return _report.get(None) or EgressReport("")


class GuardedConnector(aiohttp.TCPConnector):
    """Checks each address just before it connects, whether resolved or written in the URL."""

    def __init__(
        self,
        rules: EgressRules,
        trust: ssl.SSLContext | None = None,
        *,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        """`trust`: checks the certificates of receivers; None: by those of the system.

        `max_connections`: open and idle ones together.
        """
        self._rules = rules
        self._max_connections = max_connections
        # Upper bound of the connections: their number when last counted, and the sockets since.
        self._created = 0
        self._own_resolver = Resolver()
        super().__init__(
            limit=0,  # none: the dispatcher's slots limit the requests
            ssl=trust or True,
            keepalive_timeout=KEEP_ALIVE,
            ttl_dns_cache=DNS_TTL,
            # Given explicitly: otherwise aiohttp uses aiodns if it is installed, which does not
            # know the names of containers.
            resolver=self._own_resolver,
            # The only hook that sees every address: a resolver sees no address in a URL.
            socket_factory=self._open,
        )

    def _make_room(self) -> None:
        """Close the oldest idle connections if there are too many connections.

        The `limit` of aiohttp counts only connections in use. We know of no issue about idle ones;
        this can go when a connector limits both together.
        """
        idle = self._count_idle()
        count = len(self._acquired) + idle  # including those that are being opened
        if count > self._max_connections:
            # A few more than needed, as a socket is closed only in the next turn of the loop.
            surplus = count - self._max_connections
            closed = min(idle, surplus + self._max_connections // CLOSE_SHARE)
            self._close_oldest(closed)
            count -= closed
        self._created = count

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
        """Whether a lookup of that name has not begun."""
        return self._own_resolver.waits(host)

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close connections and resolver; aiohttp closes only a resolver that it created."""
        await super().close(abort_ssl=abort_ssl)
        await self._own_resolver.close()

    def _open(self, info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        report = current_report()
        self._check(report, str(address[0]), int(address[1]))
        self._created += 1
        if self._created > self._max_connections:
            self._make_room()
        try:
            created = socket.socket(family, kind, protocol)
        except OSError as error:
            if error.errno in SHORTAGE:
                report.out_of_sockets = True
                self._close_oldest(self._count_idle())
            raise
        report.opened = True
        return created

    def _check(self, report: EgressReport, address: str, port: int) -> None:
        report.check(self._rules, address, port)


def trust_with(ca_file: Path) -> ssl.SSLContext:
    """Trusts the system's certificates and those in the file. Raises: OSError (or ssl.SSLError)."""
    context = ssl.create_default_context()
    context.load_verify_locations(ca_file)
    context.set_alpn_protocols(("http/1.1",))
    return context


def out_of_sockets() -> bool:
    """Whether no socket can be created: then a name that was not resolved may well exist."""
    try:
        socket.socket().close()
    except OSError as error:
        return error.errno in SHORTAGE
    return False
