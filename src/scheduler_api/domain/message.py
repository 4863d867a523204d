"""A message: the request as asked and as stored, and the states that it passes.

create ─→ scheduled ─→ delivering ─→ delivered
              ↑          │  │  │
              │          │  │  └───→ failed      no attempts left, or 410
              │          │  └──────→ retrying ─→ delivering
              └──────────┘                       released unsent, or its process died

scheduled   waits for its time, or for its destination; the caller may cancel it
retrying    the same, after at least one attempt
delivering  leased by a process; nobody may change it
delivered   a 2xx answer came; its record is kept KEEP_DELIVERED
failed      given up; its record is kept KEEP_FAILED
"""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, field

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.content_type import JSON_TYPE, decode_text, is_json
from scheduler_api.domain.destination import Hold
from scheduler_api.domain.url import MAX_URL, WebhookUrl

State = Literal["scheduled", "retrying", "delivering", "delivered", "failed"]
Method = Literal["POST", "GET", "PUT", "PATCH", "DELETE"]

TIMEOUT_RANGE: Final = (timedelta(seconds=1), timedelta(minutes=15))
MAX_DELAY: Final = timedelta(days=365 * 7_500)  # from now on, it ends before the year 9999
MAX_ID: Final = 255  # characters
MAX_HEADERS: Final = 50  # header fields of one message
MAX_HEADER_BYTES: Final = 8 * 1024  # names and values together

# Their patterns are also in the JSON Schemas below: write them so that both dialects allow it.
CONTROL_CHARACTERS: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029"  # for a character class
HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, section 5.6.2
HEADER_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")

# What accept.py enforces, as JSON Schema. It is for the API's document; decoding does not check it,
# so that one answer names every wrong field.
_URL_SCHEMA: Final = {
    "minLength": len("http://h"),
    "maxLength": MAX_URL,
    "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[^\u0000-\u0020\\\u007f-\u00a0]+$",
}
_ID_SCHEMA: Final = {
    "minLength": 1,
    "maxLength": MAX_ID,
    "pattern": rf"^[^/{CONTROL_CHARACTERS}]+$",
    "not": {"enum": [".", ".."]},
}
_VALUE_PATTERN: Final = rf"^(?:{HEADER_VALUE.pattern})$"
_HEADERS_SCHEMA: Final = {
    "maxProperties": MAX_HEADERS,
    "propertyNames": {"pattern": rf"^(?:{HEADER_NAME.pattern})$"},
}
_TYPE_SCHEMA: Final = {"minLength": 1, "pattern": _VALUE_PATTERN}


def _duration(shortest: timedelta, longest: timedelta) -> Meta:
    bounds = {"minimum": int(shortest.total_seconds()), "maximum": int(longest.total_seconds())}
    return Meta(
        examples=["90s", "1m30s", "90 seconds", "PT90S", 90],
        extra_json_schema={"minLength": 1, "maxLength": 64, **bounds},
    )


Delay = Annotated[str | int | float | None, _duration(timedelta(), MAX_DELAY)]
Timeout = Annotated[str | int | float | None, _duration(*TIMEOUT_RANGE)]


class Request(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message as a caller asks for it, in any of the spellings that a field allows.

    The messages that are created, shown and exported derive from it. null means absent. To add an
    option, add a field here and to `Spec`, and a rule to accept.py if its value is checked.
    """

    id: Annotated[
        str | None,
        Meta(
            description="Name of the message; 1–255 characters, without `/` or control "
            "characters. Default: a UUIDv7 is made.",
            examples=["msg-unique-id-123"],
            extra_json_schema=_ID_SCHEMA,
        ),
    ] = None
    webhook_url: Annotated[
        str,
        Meta(
            description="Where to send it: `http` or `https`, at most 2,048 characters. Other than "
            "ASCII is encoded: the host by IDNA, the rest by percent-encoding.",
            examples=["https://example.com/hook"],
            extra_json_schema=_URL_SCHEMA,
        ),
    ]
    method: Annotated[
        Method | None,
        Meta(description="Method of the request. Default: `POST`.", examples=["POST"]),
    ] = None
    headers: Annotated[
        dict[str, Annotated[str, Meta(extra_json_schema={"pattern": _VALUE_PATTERN})]] | None,
        Meta(
            description="Further headers of the request; at most 50, 8 KiB together.",
            examples=[{"X-Trace": "42"}],
            extra_json_schema=_HEADERS_SCHEMA,
        ),
    ] = None
    content_type: Annotated[
        str | None,
        Meta(
            description="Type of the body. Other than JSON: `payload` must be a string, which is "
            "sent as text in the type's charset. Default: `application/json`.",
            examples=["text/plain", "text/plain; charset=iso-8859-1"],
            extra_json_schema=_TYPE_SCHEMA,
        ),
    ] = None
    delay: Annotated[
        Delay,
        Meta(description="Instead of `scheduleTo`: how long from now; seconds if a number."),
    ] = None
    timezone: Annotated[
        str | None,
        Meta(
            description="IANA name for a `scheduleTo` without an offset.",
            examples=["America/Sao_Paulo"],
        ),
    ] = None
    timeout: Annotated[
        Timeout,
        Meta(description="Time for the whole request, 1 s to 15 min. Default: REQUEST_TIMEOUT."),
    ] = None


class NewMessage(Request, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """A message to schedule. null means absent, except for `payload`."""

    payload: Annotated[
        Raw,
        Meta(
            description="Any JSON value; sent as the body byte for byte as it arrived. "
            "Default: no body.",
            examples=[{"message": "Sua mensagem aqui"}],
        ),
    ] = field(default_factory=Raw)
    schedule_to: Annotated[
        str | None,
        Meta(
            description="When: ISO 8601 or RFC 9557. Without an offset, local time in the zone "
            "in brackets, else in `timezone`. In the past: at once.",
            examples=["2046-04-15T02:41:45.000Z", "2046-11-06T08:00:00+01:00[Europe/Brussels]"],
        ),
    ] = None


class CheckedRequest(Request, frozen=True, kw_only=True, rename="camel"):
    """A request after its checks, in one spelling: as it is shown and exported, and valid again."""

    id: Annotated[str, Meta(description="ID of the message.", examples=["msg-unique-id-123"])]
    delay: Annotated[
        float | None, Meta(description="The delay that was asked for, in seconds.", examples=[90.0])
    ] = None
    timeout: Annotated[
        float | None,
        Meta(description="The timeout that was asked for, in seconds.", examples=[30.0]),
    ] = None


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a message that never changes, without its instants and the URL that is called.

    It is stored as a map with these one-letter names, without defaults; unknown names are ignored.
    So keep every default, name and the order, and add a new field at the end: another default would
    change stored messages, and another order the fingerprint of a request.
    """

    method: Method = field(default="POST", name="m")
    headers: dict[str, str] = field(default_factory=dict, name="h")
    content_type: str = field(default=JSON_TYPE, name="c")
    body: bytes | None = field(default=None, name="b")  # as it is sent; None: no body
    timeout: float | None = field(default=None, name="t")  # seconds; None: REQUEST_TIMEOUT
    delay: float | None = field(default=None, name="d")  # seconds; None: an instant was asked for
    timezone: str | None = field(default=None, name="z")
    given_url: str | None = field(default=None, name="u")  # as asked; None: the URL that is called


# The fields of both: they are copied by name.
OPTIONS: Final = tuple(name for name in Request.__struct_fields__ if name in Spec.__struct_fields__)


def options_of(struct: Request | Spec) -> dict[str, Any]:
    """Name → value of each option, to make another of these structs from."""
    return {name: getattr(struct, name) for name in OPTIONS}


class Accepted(msgspec.Struct, frozen=True):
    """A new message that passed every check."""

    id: str | None  # None: the service makes one
    url: WebhookUrl
    due_at: datetime | None  # None: spec.delay after the store has created it
    spec: Spec


class Message(msgspec.Struct, frozen=True):
    """A stored message with its state."""

    id: str
    url: str
    spec: Spec
    state: State
    hold: Hold | None  # why it waits although it is due; None: nothing holds it
    created_at: datetime
    scheduled_at: datetime
    next_attempt_at: datetime | None  # None: no attempt follows
    attempts: list[Attempt]  # the newest ones, oldest first
    attempts_made: int
    crashes: int  # processes that ended while they sent it


class Listed(msgspec.Struct, frozen=True):
    """A row of the list of pending messages."""

    id: str
    url: str
    state: State
    due_at: datetime
    attempts_made: int


class Page(msgspec.Struct, frozen=True):
    """A page of the list of pending messages."""

    rows: list[Listed]
    total: int  # on all pages
    cursor: str | None  # opaque: where the next page begins; None: this is the last page


def payload(spec: Spec) -> Any:
    """The payload as it was given, for an encoder of JSON; UNSET if there was none."""
    if spec.body is None:
        return UNSET
    if is_json(spec.content_type):
        return Raw(spec.body)
    return decode_text(spec.body, spec.content_type)
