"""Redis's own reason why it does not serve us, in words that say what to do."""

import re
import socket
from collections.abc import Iterator
from typing import Final

from redis import exceptions

_LOGIN: Final = "REDIS_URL, or REDIS_PASSWORD"

# By the error's class, or by what its text has in it. The first that fits.
_BY_CLASS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.BusyLoadingError, "The store is loading its data; it serves when it has them."),
    (
        exceptions.ReadOnlyError,
        "The store is a replica and takes no writes: let REDIS_URL name its master.",
    ),
    (exceptions.MasterDownError, "The store is a replica that has lost its master."),
    (exceptions.ClusterDownError, "The cluster is down: CLUSTER INFO on its nodes says why."),
    (
        exceptions.MovedError,
        "The store is one node of a Cluster: give REDIS_URL as redis+cluster://HOST.",
    ),
)
_BY_TEXT: Final[tuple[tuple[str, str], ...]] = (
    (
        r"authentication required|NOAUTH",
        f"The store asks for a password and none is set: set it in {_LOGIN}.",
    ),
    (
        r"without any password configured",
        f"The store has no password and one is set: take it out of {_LOGIN}.",
    ),
    (
        r"invalid username-password|invalid password|WRONGPASS",
        f"The store refuses the login: check user and password in {_LOGIN}.",
    ),
    (
        r"DB index is out of range|invalid DB index",
        "The store has no database of this number: check the one in REDIS_URL, such as /0.",
    ),
    (
        r"protected mode",
        "The store is in protected mode and serves only its own machine: give it a password, or "
        "let it bind the address that is dialled.",
    ),
    (
        r"max number of clients",
        "The store has as many clients as its maxclients allows: raise it, or end some.",
    ),
    (r"^BUSY ", "The store is busy with a script of another client; SCRIPT KILL ends it."),
    (r"NOREPLICAS", "The store has fewer replicas than its min-replicas-to-write asks for."),
    (
        r"Cluster mode is not enabled|cluster support disabled",
        "The store is no Cluster: give REDIS_URL as redis://HOST.",
    ),
    (
        r"No master found",
        "The sentinels know no such master: check the name after the hosts in REDIS_URL.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "The store's certificate is not trusted: ssl_ca_certs in REDIS_URL names its issuer's "
        "file, and the host must be one that it was issued for.",
    ),
)
_UNKNOWN_HOST: Final = (
    "The store cannot be reached, as its host name is not known: check REDIS_URL, or REDIS_HOST."
)


def reason(error: Exception) -> str | None:
    """One sentence or two; None if neither Redis nor the system says why."""
    for one in _chain(error):
        if isinstance(one, socket.gaierror):
            return _UNKNOWN_HOST
        for kind, words in _BY_CLASS:
            if isinstance(one, kind):
                return words
        for pattern, words in _BY_TEXT:
            if re.search(pattern, str(one), re.IGNORECASE):
                return words
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it: redis-py wraps what happens at a connection's start."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
