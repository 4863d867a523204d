"""An attempt to deliver a message: its record, and what each error word means."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, Literal, NamedTuple

import msgspec

ATTEMPTS_KEPT: Final = 20  # newest attempts in a message's log
EXCERPT_BYTES: Final = 4 * 1024  # of a response body kept in the log
LOCATION_CHARACTERS: Final = 200  # of a redirect's Location kept in the log

ErrorWord = Literal[
    "egress_denied",
    "proxy_error",
    "dns_error",
    "connect_error",
    "connect_timeout",
    "tls_error",
    "bad_request",
    "timeout",
    "disconnected",
    "bad_response",
    "shutdown",
    "internal_error",
]


class ErrorMeaning(NamedTuple):
    """What an error word means."""

    text: str  # for people
    reached: bool | None  # whether the destination was reached; None: unknown


# Without a connection, the fault may be anywhere in the network; after one, the host is there.
ERROR_MEANINGS: Final[Mapping[ErrorWord, ErrorMeaning]] = {
    "egress_denied": ErrorMeaning("the egress rules do not allow the address", None),
    "proxy_error": ErrorMeaning("the egress proxy did not pass the request on", None),
    "dns_error": ErrorMeaning("the host name could not be resolved", False),
    "connect_error": ErrorMeaning("the connection was refused or failed", False),
    "connect_timeout": ErrorMeaning("no connection was made in time", False),
    "tls_error": ErrorMeaning("the TLS handshake failed or the certificate is not valid", True),
    "bad_request": ErrorMeaning("the request cannot be sent to this URL", None),
    "timeout": ErrorMeaning("no response came in time", None),
    "disconnected": ErrorMeaning("the connection ended before a response came", True),
    "bad_response": ErrorMeaning("the response is not HTTP/1.x", True),
    "shutdown": ErrorMeaning("the service stopped while the request was open", None),
    "internal_error": ErrorMeaning("the service failed; its log has an `attempt_error`", None),
}
_REACHED_AFTER: Final[Mapping[str, bool | None]] = {
    word: it.reached for word, it in ERROR_MEANINGS.items()
}


class Attempt(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One HTTP request that was made, and its result."""

    number: int  # 1, 2, …
    started_at: datetime
    duration_ms: int
    status: int | None  # of the response; None: none came
    error: str | None  # an ErrorWord, or one of a later version; None: a response came
    response_excerpt: str | None  # first EXCERPT_BYTES of the response body, as text
    lateness_ms: int  # from the instant it was due to its start
    location: str | None = None  # where a redirect leads, its first LOCATION_CHARACTERS


def reached(status: int | None, error: str | None) -> bool | None:
    """Whether an attempt with this result reached its destination; None: unknown."""
    return True if status is not None else _REACHED_AFTER.get(error or "")


def was_cut_off(attempt: Attempt) -> bool:
    """Whether this service ended it: then its duration says nothing about the destination."""
    return attempt.error == "shutdown"
