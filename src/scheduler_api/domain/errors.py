"""The error tree, with the HTTP status of each family.

SchedulerError
├── Malformed            400  the request cannot be read
│   ├── PayloadTooLarge  413
│   ├── HeadTooLarge     431
│   └── RequestTimeout   408  it did not arrive completely
├── Unauthenticated      401
├── NotFound             404
│   ├── MessageNotFound
│   ├── DestinationNotFound
│   └── MessageFinished       it can no longer be changed
├── Conflict             409
│   ├── DuplicateMessage
│   └── MessageInFlight
├── Invalid              422  readable, but a field is wrong
└── Unavailable          503  nothing was changed, or the outcome is unknown
    ├── TooManyConnections
    ├── ShuttingDown          outcome unknown
    ├── StoreUnavailable      nothing was changed
    │   └── OutcomeUnknown    the change was sent, but not confirmed
    ├── StoreFull
    ├── MemoryFull            refused before the body was read
    ├── StoreNotDurable       refused by STRICT
    ├── StoreStartFailed      the embedded store did not start
    └── DataRefused           this process cannot use the data
        ├── SchemaTooNew      a newer version wrote the data
        ├── SchemaTooOld      a version wrote the data that this one cannot read
        └── OtherPartitions   PARTITIONS does not match the data

A failed delivery is not an error but a value: `Attempt`.
"""

from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    path: Annotated[
        str,
        Meta(
            description="Where it is: a JSON pointer into the body, `?name` in the query, `{name}` "
            "in the path.",
            examples=["/headers/X-Key", "?limit", "{host}"],
        ),
    ]
    message: Annotated[
        str,
        Meta(
            description="What is wrong and what to do.",
            examples=["there is no such field; did you mean webhookUrl?"],
        ),
    ]


def pointer_step(name: str) -> str:
    """A member name as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


class SchedulerError(Exception):
    """The request could not be carried out."""

    code: ClassVar[str] = "error"  # for programs; never changes

    def __init__(self, detail: str | None = None, **facts: Any) -> None:
        """`detail`: default is the docstring. `facts`: further members of the response."""
        super().__init__(detail or (self.__doc__ or "").strip())
        self.facts = facts


def text_with_cause(error: Exception) -> str:
    """The text of the error and of its cause: a store's address, or why it is refused.

    A refusal of the data is complete; its cause is a script's words.
    """
    text, cause = str(error), str(error.__cause__ or "")
    if cause in text or isinstance(error, DataRefused):
        return text
    return f"{text} ({' '.join(cause.splitlines())})"


class Malformed(SchedulerError):
    """The body is not valid JSON in UTF-8."""

    code = "malformed_request"


class PayloadTooLarge(Malformed):
    """The body is larger than MAX_BODY; send a smaller one."""

    code = "payload_too_large"


class HeadTooLarge(Malformed):
    """The request head is over 64 KiB or has over 200 header fields; send fewer headers."""

    code = "head_too_large"


class RequestTimeout(Malformed):
    """The request did not arrive completely within 30 seconds; send it again."""

    code = "request_timeout"


class Unauthenticated(SchedulerError):
    """The token is missing or invalid; send the header `Authorization: Bearer TOKEN`."""

    code = "unauthenticated"


class NotFound(SchedulerError):
    """There is nothing at this address; see /docs."""

    code = "not_found"


class MessageNotFound(NotFound):
    """There is no message with this id."""

    code = "message_not_found"


class DestinationNotFound(NotFound):
    """There is no such destination: it has no traffic and no limits."""

    code = "destination_not_found"


class MessageFinished(NotFound):
    """The message is already delivered or failed; it cannot be deleted."""

    code = "message_finished"


class Conflict(SchedulerError):
    """The state of the message does not allow this."""

    code = "conflict"


class DuplicateMessage(Conflict):
    """A message with this id already exists; use another id."""

    code = "duplicate_message"


class MessageInFlight(Conflict):
    """The message is being sent, or will be within a second; try again after the attempt."""

    code = "in_flight"


class Invalid(SchedulerError):
    """A field is invalid."""

    code = "invalid_request"

    def __init__(self, errors: list[FieldError]) -> None:
        """`errors`: at least one. The detail names all of them."""
        super().__init__("; ".join(f"{error.path}: {error.message}" for error in errors))
        self.errors = errors


class Unavailable(SchedulerError):
    """The service is temporarily unavailable; try again later."""

    code = "unavailable"
    retry_after = 1  # seconds


class TooManyConnections(Unavailable):
    """Too many open connections; nothing was changed. Try again, or reuse a connection."""

    code = "too_many_connections"


class ShuttingDown(Unavailable):
    """The server stopped before it could respond; it is unknown whether the change was made."""

    code = "shutting_down"


class StoreUnavailable(Unavailable):
    """The store cannot be reached; nothing was changed. Try again."""

    code = "store_unavailable"


class OutcomeUnknown(StoreUnavailable):
    """It is unknown whether the change was made; repeating it with the same id is safe."""

    code = "outcome_unknown"


class StoreFull(Unavailable):
    """The store is full; nothing was stored. Try again later, or give the store more memory."""

    code = "store_full"
    retry_after = 30


class MemoryFull(Unavailable):
    """The request bodies in memory have reached MAX_MEMORY; nothing was stored. Try again."""

    code = "memory_full"


class StoreNotDurable(Unavailable):
    """The store may lose messages, and STRICT=1 does not allow that."""

    code = "store_not_durable"


class StoreStartFailed(Unavailable):
    """The embedded store did not start."""

    code = "store_start_failed"


class DataRefused(Unavailable):
    """This process cannot use the data in the store."""

    code = "data_refused"


class SchemaTooNew(DataRefused):
    """A newer version of Scheduler API wrote the data; upgrade this one."""

    code = "schema_too_new"


class SchemaTooOld(DataRefused):
    """An older version of Scheduler API wrote the data, which this one cannot read; export them."""

    code = "schema_too_old"


class OtherPartitions(DataRefused):
    """PARTITIONS does not match the number of partitions of the data."""

    code = "other_partitions"
