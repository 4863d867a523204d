"""The error tree; the api turns each family into a status, a script's word into a leaf.

SchedulerError
├── Malformed            400  the request cannot be read
│   ├── PayloadTooLarge  413
│   ├── HeadTooLarge     431
│   └── RequestTimeout   408  it did not arrive whole
├── Unauthenticated      401
├── NotFound             404
│   ├── MessageNotFound
│   ├── DestinationNotFound
│   └── MessageFinished       nothing is left to change
├── Conflict             409
│   ├── DuplicateMessage
│   └── MessageInFlight
├── Invalid              422  readable, but a field is wrong
└── Unavailable          503  nothing was changed, or nobody can tell
    ├── TooManyConnections
    ├── ShuttingDown          outcome unknown
    ├── StoreUnavailable      nothing was changed
    │   └── OutcomeUnknown    the change was sent, and is not confirmed
    ├── StoreFull
    ├── MemoryFull            refused before its body was read
    ├── StoreNotDurable       refused by STRICT
    ├── StoreStartFailed      the embedded store did not come up
    └── DataRefused           this process must not touch these data
        ├── SchemaTooNew      they were written by a newer version
        └── OtherPartitions   they are divided otherwise than PARTITIONS says

A failed delivery is no error but a value: `Attempt`.
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
            description="What would be right.",
            examples=["there is no such field; did you mean webhookUrl?"],
        ),
    ]


def pointer_step(name: str) -> str:
    """The name of a member as a step of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


class SchedulerError(Exception):
    """The request could not be carried out."""

    code: ClassVar[str] = "error"  # stable word, for programs

    def __init__(self, detail: str | None = None, **facts: Any) -> None:
        """`facts` are further members of the answer; the docstring is the default detail."""
        super().__init__(detail or (self.__doc__ or "").strip())
        self.facts = facts


class Malformed(SchedulerError):
    """The body is not valid JSON in UTF-8."""

    code = "malformed_request"


class PayloadTooLarge(Malformed):
    """The body is larger than MAX_BODY."""

    code = "payload_too_large"


class HeadTooLarge(Malformed):
    """The head of the request is over 64 KiB or has over 200 header fields; send fewer."""

    code = "head_too_large"


class RequestTimeout(Malformed):
    """The request did not arrive within 30 seconds; send it again, without a pause in it."""

    code = "request_timeout"


class Unauthenticated(SchedulerError):
    """Send the header `Authorization: Bearer TOKEN` with a valid token."""

    code = "unauthenticated"


class NotFound(SchedulerError):
    """There is nothing at this address."""

    code = "not_found"


class MessageNotFound(NotFound):
    """There is no message with this id."""

    code = "message_not_found"


class DestinationNotFound(NotFound):
    """There is no destination of this name that has load or settings."""

    code = "destination_not_found"


class MessageFinished(NotFound):
    """The message has already been sent or given up; there is nothing left to delete."""

    code = "message_finished"


class Conflict(SchedulerError):
    """The message is not in a state that allows this."""

    code = "conflict"


class DuplicateMessage(Conflict):
    """A message with this id exists."""

    code = "duplicate_message"


class MessageInFlight(Conflict):
    """The message is being sent at this moment; try again when the attempt has ended."""

    code = "in_flight"


class Invalid(SchedulerError):
    """A field is wrong."""

    code = "invalid_request"

    def __init__(self, errors: list[FieldError]) -> None:
        """`errors`: at least one; the first is also the detail."""
        super().__init__("; ".join(f"{error.path}: {error.message}" for error in errors))
        self.errors = errors


class Unavailable(SchedulerError):
    """The service cannot do this now; try again later."""

    code = "unavailable"
    retry_after = 1  # seconds


class TooManyConnections(Unavailable):
    """Too many connections are open; nothing was done. Try again later, or on an open one."""

    code = "too_many_connections"


class ShuttingDown(Unavailable):
    """The server ended before it could answer; whether the change was made is unknown."""

    code = "shutting_down"


class StoreUnavailable(Unavailable):
    """The store cannot be reached; nothing was changed, try again."""

    code = "store_unavailable"


class OutcomeUnknown(StoreUnavailable):
    """Whether the change was made is unknown; repeating it is safe, with the same id."""

    code = "outcome_unknown"


class StoreFull(Unavailable):
    """The store is full and refuses to write; nothing was stored."""

    code = "store_full"
    retry_after = 30


class MemoryFull(Unavailable):
    """The service holds as many bodies as MAX_MEMORY allows; nothing was stored, try again."""

    code = "memory_full"


class StoreNotDurable(Unavailable):
    """The store may lose messages, and STRICT is set."""

    code = "store_not_durable"


class StoreStartFailed(Unavailable):
    """The embedded store did not start."""

    code = "store_start_failed"


class DataRefused(Unavailable):
    """The data in the store are not such as this process may touch."""

    code = "data_refused"


class SchemaTooNew(DataRefused):
    """The data were written by a newer version of Scheduler API; upgrade this one."""

    code = "schema_too_new"


class OtherPartitions(DataRefused):
    """The data are divided into another number of partitions than PARTITIONS says."""

    code = "other_partitions"
