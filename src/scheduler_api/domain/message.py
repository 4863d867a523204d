"""A message: what a caller may ask for, the checks it passes, and how it is shown.

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
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeVar, TypeVarTuple, cast

import msgspec
from msgspec import UNSET, Meta, Raw

from scheduler_api.domain.attempt import Attempt
from scheduler_api.domain.content_type import (
    JSON_TYPE,
    charset_of,
    decode_text,
    encode_payload,
    is_json,
)
from scheduler_api.domain.destination import Hold
from scheduler_api.domain.duration import parse_duration
from scheduler_api.domain.errors import FieldError, Invalid, pointer_step
from scheduler_api.domain.instant import parse_instant
from scheduler_api.domain.time_zone import time_zone
from scheduler_api.domain.url import MAX_URL, WebhookUrl, parse_url

T = TypeVar("T")
Args = TypeVarTuple("Args")

State = Literal["scheduled", "retrying", "delivering", "delivered", "failed"]
Method = Literal["POST", "GET", "PUT", "PATCH", "DELETE"]

TIMEOUT_RANGE: Final = (timedelta(seconds=1), timedelta(minutes=15))
MAX_DELAY: Final = timedelta(days=365 * 7_500)  # from now on, it ends before the year 9999
MAX_ID: Final = 255  # characters
MAX_HEADERS: Final = 50  # header fields of one message
MAX_HEADER_BYTES: Final = 8 * 1024  # names and values together

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")  # RFC 9110, section 5.6.2
_FIELD_VALUE: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?|")
# What the checks below enforce, as JSON Schema says it: told in the API's document, not checked
# while decoding, so that one answer tells of every wrong field.
_URL_SCHEMA: Final = {
    "minLength": len("http://h"),
    "maxLength": MAX_URL,
    "pattern": r"^[Hh][Tt][Tt][Pp][Ss]?://[^\u0000-\u0020\\\u007f-\u00a0]+$",
}
_ID_SCHEMA: Final = {
    "minLength": 1,
    "maxLength": MAX_ID,
    "pattern": r"^[^/\u0000-\u001f\u007f-\u009f\u2028\u2029]+$",
    "not": {"enum": [".", ".."]},
}
_VALUE_PATTERN: Final = r"^([!-~]([\t -~]*[!-~])?)?$"
_HEADERS_SCHEMA: Final = {
    "maxProperties": MAX_HEADERS,
    "propertyNames": {"pattern": r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"},
}
_TYPE_SCHEMA: Final = {"minLength": 1, "pattern": _VALUE_PATTERN}
_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS: Final = ("webhook-", "scheduler-")  # prefixes of headers that only we may send


def _duration(shortest: timedelta, longest: timedelta) -> Meta:
    bounds = {"minimum": int(shortest.total_seconds()), "maximum": int(longest.total_seconds())}
    return Meta(
        examples=["90s", "1m30s", "90 seconds", "PT90S", 90],
        extra_json_schema={"minLength": 1, "maxLength": 64, **bounds},
    )


Delay = Annotated[str | int | float | None, _duration(timedelta(), MAX_DELAY)]
Timeout = Annotated[str | int | float | None, _duration(*TIMEOUT_RANGE)]


class NewMessage(msgspec.Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """What a caller may ask for; null is as absent, but for `payload`."""

    webhook_url: Annotated[
        str,
        Meta(
            description="Where to send it: `http` or `https`, at most 2,048 characters. Other than "
            "ASCII is encoded: the host by IDNA, the rest by percent-encoding.",
            examples=["https://example.com/hook"],
            extra_json_schema=_URL_SCHEMA,
        ),
    ]
    id: Annotated[
        str | None,
        Meta(
            description="Name of the message; 1–255 characters, without `/` or control "
            "characters. Default: a UUIDv7 is made.",
            examples=["msg-unique-id-123"],
            extra_json_schema=_ID_SCHEMA,
        ),
    ] = None
    payload: Annotated[
        Raw,
        Meta(
            description="Any JSON value; sent as the body byte for byte as it arrived. "
            "Default: no body.",
            examples=[{"message": "Sua mensagem aqui"}],
        ),
    ] = msgspec.field(default_factory=Raw)
    schedule_to: Annotated[
        str | None,
        Meta(
            description="When: ISO 8601 or RFC 9557. Without an offset, local time in the zone "
            "in brackets, else in `timezone`. In the past: at once.",
            examples=["2046-04-15T02:41:45.000Z", "2046-11-06T08:00:00+01:00[Europe/Brussels]"],
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
    timeout: Annotated[
        Timeout,
        Meta(description="Time for the whole request, 1 s to 15 min. Default: REQUEST_TIMEOUT."),
    ] = None


class Spec(msgspec.Struct, frozen=True):
    """What of a message never changes, beside its instants and its URL.

    A default stays what it is: it is not stored, so another one would change old messages.
    """

    method: Method = "POST"
    headers: dict[str, str] = {}
    content_type: str = JSON_TYPE
    body: bytes | None = None  # as it is sent; None: no body
    timeout_ms: int | None = None  # None: REQUEST_TIMEOUT
    delay_ms: int | None = None  # as asked; None: an instant was asked for
    timezone: str | None = None  # as asked
    given_url: str | None = None  # as asked; None: the URL that is called


class Accepted(msgspec.Struct, frozen=True):
    """A new message that passed every check."""

    id: str | None  # None: one is to be made
    url: WebhookUrl
    due_at: datetime | None  # None: spec.delay_ms after the store's now
    spec: Spec


class Message(msgspec.Struct, frozen=True):
    """A stored message as it stands."""

    id: str
    url: str
    spec: Spec
    state: State
    hold: Hold | None  # why it waits although it is due
    created_at: datetime
    scheduled_at: datetime
    next_attempt_at: datetime | None  # None: none is to come
    attempts: list[Attempt]  # the newest, oldest of them first
    attempts_made: int
    crashes: int  # processes that died while they had it


class Listed(msgspec.Struct, frozen=True):
    """A row of the list of pending messages."""

    id: str
    url: str
    state: State
    due_at: datetime
    attempts_made: int


class Page(msgspec.Struct, frozen=True):
    """A page of the list; cursor: opaque, where the next page begins, None at the end."""

    rows: list[Listed]
    total: int
    cursor: str | None


def accept(
    new: NewMessage, default_zone: str, refusal: Callable[[str, int], str | None]
) -> Accepted:
    """Check a new message; `refusal`: why a host and port may not be dialled. Raises: Invalid."""
    checks = _Checks()
    check = checks.run
    url = check("/webhookUrl", _url, new.webhook_url, refusal)
    message_id = None if new.id is None else check("/id", check_id, new.id)
    asked_zone = None if new.timezone is None else check("/timezone", _zone_name, new.timezone)
    zone_name = default_zone if new.timezone is None else asked_zone
    due_at = check("/scheduleTo", _due_at, new, zone_name) if zone_name else None
    delay_ms = check("/delay", _delay, new) if new.schedule_to is None else None
    timeout_ms = None if new.timeout is None else check("/timeout", _timeout, new.timeout)
    headers = check("/headers", _headers, new.headers) if new.headers else {}
    content_type: str | None = JSON_TYPE
    if new.headers or new.content_type is not None:
        content_type = check("/contentType", _content_type, new)
    body = check("/payload", _body, new.payload, content_type) if content_type else None
    checks.done()
    # What is None here was not asked for: whatever failed has been raised by done().
    asked_url = cast("WebhookUrl", url)
    spec = Spec(
        new.method or "POST",
        headers or {},
        content_type or JSON_TYPE,
        body,
        timeout_ms,
        delay_ms,
        asked_zone,
        asked_url.given,
    )
    return Accepted(message_id, asked_url, due_at, spec)


class _Checks:
    """Gathers what is wrong with each field, so that one answer tells it all."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def run(self, path: str, rule: Callable[[*Args], T], *args: *Args) -> T | None:
        """What the rule makes of its arguments; None if it refuses them."""
        try:
            return rule(*args)
        except _HeaderError as error:
            self._errors.append(FieldError(f"/headers/{pointer_step(error.name)}", str(error)))
        except ValueError as error:
            self._errors.append(FieldError(path, str(error)))
        return None

    def done(self) -> None:
        """Raises: Invalid, if anything was wrong."""
        if self._errors:
            raise Invalid(self._errors)


class _HeaderError(ValueError):
    """A header that may not be sent."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def check_id(text: str) -> str:
    """The id, if it may be one."""
    if not 1 <= len(text) <= MAX_ID:
        raise ValueError(f"an id has 1 to {MAX_ID} characters, not {len(text)}")
    if "/" in text or _CONTROL.search(text):
        raise ValueError("an id has no slash and no control characters")
    if text in (".", ".."):
        raise ValueError("an id of dots alone cannot stand in a URL")
    return text


def _url(text: str, refusal: Callable[[str, int], str | None]) -> WebhookUrl:
    url = parse_url(text)
    if reason := refusal(url.host, url.port):
        raise ValueError(reason)
    return url


def _zone_name(name: str) -> str:
    return time_zone(name).key


def _due_at(new: NewMessage, zone_name: str) -> datetime | None:
    if new.schedule_to is None:
        return None
    if new.delay is not None:
        raise ValueError("give scheduleTo or delay, not both")
    return parse_instant(new.schedule_to, zone_name)


def _delay(new: NewMessage) -> int:
    span = timedelta() if new.delay is None else parse_duration(new.delay)
    if span > MAX_DELAY:
        raise ValueError("a delay is at most 7,500 years")
    return _milliseconds(span)


def _timeout(value: str | int | float) -> int:
    span = parse_duration(value)
    shortest, longest = TIMEOUT_RANGE
    if not shortest <= span <= longest:
        raise ValueError("a timeout is between 1 second and 15 minutes")
    return _milliseconds(span)


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)


def _headers(headers: dict[str, str]) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} headers, not {len(headers)}")
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in seen:
            raise _HeaderError(name, "the same header stands twice")
        seen.add(name.lower())
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise ValueError("names and values are over 8 KiB together")
    return headers


def _check_header(name: str, value: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise _HeaderError(name, "a name has 1 to 64 letters, digits and !#$%&'*+-.^_`|~")
    lower = name.lower()
    if lower in _HOP_BY_HOP or lower.startswith(_OURS):
        raise _HeaderError(name, "this header is set by the service and cannot be given")
    if not _FIELD_VALUE.fullmatch(value):
        raise _HeaderError(name, "a value has visible ASCII characters, spaces between them")


def _content_type(new: NewMessage) -> str:
    """The field, or the header of that name; one of them."""
    given = [value for name, value in (new.headers or {}).items() if name.lower() == "content-type"]
    if new.content_type is not None:
        given.append(new.content_type)
    if len(given) > 1:
        raise ValueError("give contentType or the header Content-Type, not both")
    found = given[0] if given else JSON_TYPE
    if not found or not _FIELD_VALUE.fullmatch(found):
        raise ValueError("a content type looks like text/plain; charset=utf-8")
    charset_of(found)
    return found


def _body(payload: Raw, content_type: str) -> bytes | None:
    sent = bytes(payload)
    # The first test is enough for most payloads: they are JSON, and are sent as they are.
    if content_type == JSON_TYPE or not sent:
        return sent or None
    return encode_payload(sent, content_type)


def payload(spec: Spec) -> Any:
    """The payload as it was given, to be encoded as JSON; UNSET if there was none."""
    if spec.body is None:
        return UNSET
    if is_json(spec.content_type):
        return Raw(spec.body)
    return decode_text(spec.body, spec.content_type)
