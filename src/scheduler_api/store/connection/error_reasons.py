"""Why the store cannot be used, from the errors of Redis and of the system, and what to do."""

import re
import socket
from collections.abc import Iterator
from typing import Final

from redis import exceptions

_LOGIN: Final = "REDIS_URL or REDIS_PASSWORD"

# By the class of an error, then by its text. The first match counts.
_BY_CLASS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (exceptions.BusyLoadingError, "The store is loading its data; wait until it is ready."),
    (
        exceptions.ReadOnlyError,
        "The store is a read-only replica: set REDIS_URL to its master.",
    ),
    (
        exceptions.MasterDownError,
        "The store is a replica that lost its master: start the master, or promote a replica.",
    ),
    (exceptions.ClusterDownError, "The cluster is down: run CLUSTER INFO on its nodes to see why."),
    (
        exceptions.MovedError,
        "The store is a node of a Redis Cluster: set REDIS_URL to redis+cluster://HOST.",
    ),
)
_BY_TEXT: Final[tuple[tuple[str, str], ...]] = (
    (
        r"authentication required|NOAUTH",
        f"The store requires a password: set it in {_LOGIN}.",
    ),
    (
        r"without any password configured",
        f"The store has no password, but one is set: remove it from {_LOGIN}.",
    ),
    (
        r"invalid username-password|invalid password|WRONGPASS",
        f"The store refused the login: check user and password in {_LOGIN}.",
    ),
    (
        r"DB index is out of range|invalid DB index",
        "The store has no database with this number: check the number in REDIS_URL, usually /0.",
    ),
    (
        r"protected mode",
        "The store is in protected mode and accepts only local connections: set a password on it, "
        "or bind it to the address in REDIS_URL.",
    ),
    (
        r"max number of clients",
        "The store has reached its maxclients: increase it, or close other connections.",
    ),
    (r"^BUSY ", "The store is busy with the script of another client: wait, or run SCRIPT KILL."),
    (
        r"NOREPLICAS",
        "The store has fewer replicas than min-replicas-to-write: start more replicas.",
    ),
    (
        r"Cluster mode is not enabled|cluster support disabled",
        "The store is not a Redis Cluster: set REDIS_URL to redis://HOST.",
    ),
    (
        r"No master found",
        "The sentinels do not know this master: check the name after the hosts in REDIS_URL.",
    ),
    (
        r"CERTIFICATE_VERIFY_FAILED",
        "The store's certificate is not trusted: set ssl_ca_certs in REDIS_URL to the CA file, and "
        "connect by a host name that the certificate covers.",
    ),
)
_UNKNOWN_HOST: Final = (
    "The store cannot be reached because its host name is unknown: check REDIS_URL or REDIS_HOST."
)


def explain(error: Exception) -> str | None:
    """Why the store cannot be used and what to do, in one sentence; None: unknown."""
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
    """The error and its causes: redis-py wraps the errors of a new connection."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
