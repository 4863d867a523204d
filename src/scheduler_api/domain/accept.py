"""The checks of a new message. All wrong fields are reported together."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final, TypeVar, TypeVarTuple, cast

from msgspec import Raw
from msgspec.structs import fields, replace

from scheduler_api.domain.content_type import JSON_TYPE, charset_of, encode_payload
from scheduler_api.domain.duration import milliseconds, parse_duration
from scheduler_api.domain.errors import FieldError, Invalid, pointer_step
from scheduler_api.domain.instant import parse_instant
from scheduler_api.domain.message import (
    CONTROL_CHARACTERS,
    HEADER_NAME,
    HEADER_VALUE,
    MAX_DELAY,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    MAX_ID,
    OPTIONS,
    TIMEOUT_RANGE,
    Accepted,
    NewMessage,
    Request,
    Spec,
)
from scheduler_api.domain.time_zone import time_zone
from scheduler_api.domain.url import WebhookUrl, parse_url

T = TypeVar("T")
Args = TypeVarTuple("Args")

_CONTROL_CHARACTER: Final = re.compile(f"[{CONTROL_CHARACTERS}]")
_parsed = lru_cache(maxsize=256)(parse_url)  # callers use few URLs; each may have 2 KiB
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
_OURS: Final = ("webhook-", "scheduler-")  # prefixes of headers that only the service sends


def accept(
    new: NewMessage, default_zone: str, refusal: Callable[[str, int], str | None]
) -> Accepted:
    """Check a new message. `refusal` says why a host and port are not allowed. Raises: Invalid."""
    checks = _Checks()
    check = checks.run
    url = check("/webhookUrl", _url, new.webhook_url, refusal)
    message_id = None if new.id is None else check("/id", check_id, new.id)
    options = {} if (given := _options_of(new)) == _NONE_GIVEN else checks.options(given)
    zone_name = default_zone if new.timezone is None else options.get("timezone")
    due_at = check("/scheduleTo", _due_at, new, zone_name) if zone_name else None
    delay: float | None = None
    if new.schedule_to is None:
        delay = 0 if new.delay is None else check("/delay", check_delay, new.delay)
    content_type: str | None = JSON_TYPE
    if new.headers or new.content_type is not None:
        content_type = check("/contentType", _content_type, new)
    body = check("/payload", _body, new.payload, content_type) if content_type else None
    checks.done()
    # Nothing is None because of a failed check: done() has raised for that.
    asked_url, asked_type = cast("WebhookUrl", url), cast("str", content_type)
    spec = Spec(content_type=asked_type, body=body, delay=delay, given_url=asked_url.given)
    return Accepted(message_id, asked_url, due_at, replace(spec, **options) if options else spec)


class _Checks:
    """Collects the errors of all fields."""

    def __init__(self) -> None:
        self._errors: list[FieldError] = []

    def run(self, path: str, rule: Callable[[*Args], T], *args: *Args) -> T | None:
        """The result of the rule; None if it raises ValueError, which is collected."""
        try:
            return rule(*args)
        except _HeaderError as error:
            self._errors.append(FieldError(f"/headers/{pointer_step(error.name)}", str(error)))
        except ValueError as error:
            self._errors.append(FieldError(path, str(error)))
        return None

    def options(self, given: Sequence[Any]) -> dict[str, Any]:
        """The results of `_ONE_BY_ONE` for the values, without those that are the default."""
        return {
            name: checked
            for (name, path, rule), value in zip(_ONE_BY_ONE, given, strict=True)
            if value is not None
            and (checked := value if rule is None else self.run(path, rule, value))
            != _DEFAULTS[name]
        }

    def done(self) -> None:
        """Raises: Invalid, if there are errors."""
        if self._errors:
            raise Invalid(self._errors)


class _HeaderError(ValueError):
    """An invalid header; its path in the error has its name."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


def check_id(text: str) -> str:
    """The id. Raises: ValueError."""
    if not 1 <= len(text) <= MAX_ID:
        raise ValueError(f"an id must have 1 to {MAX_ID} characters, not {len(text)}")
    if "/" in text or _CONTROL_CHARACTER.search(text):
        raise ValueError("an id must not contain a slash or a control character")
    if text in (".", ".."):
        raise ValueError("an id must not be . or ..")
    return text


def _url(text: str, refusal: Callable[[str, int], str | None]) -> WebhookUrl:
    url = _parsed(text)
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


# Callers ask for the same few durations, and parsing one takes 6 µs.
@lru_cache(maxsize=1024, typed=True)
def check_delay(value: str | int | float) -> float:
    """The delay in seconds. Raises: ValueError."""
    span = parse_duration(value)
    if span > MAX_DELAY:
        raise ValueError("a delay must be at most 7,500 years")
    return _seconds(span)


@lru_cache(maxsize=1024, typed=True)
def _timeout(value: str | int | float) -> float:
    span = parse_duration(value)
    shortest, longest = TIMEOUT_RANGE
    if not shortest <= span <= longest:
        raise ValueError("a timeout must be from 1 second to 15 minutes")
    return _seconds(span)


def _seconds(span: timedelta) -> float:
    """Exact to the millisecond; whole seconds as an int, which takes fewer bytes in a record."""
    ms = milliseconds(span)
    return ms / 1000 if ms % 1000 else ms // 1000


def _headers(headers: dict[str, str]) -> dict[str, str]:
    if len(headers) > MAX_HEADERS:
        raise ValueError(f"at most {MAX_HEADERS} headers are allowed, not {len(headers)}")
    seen: set[str] = set()
    for name, value in headers.items():
        _check_header(name, value)
        if name.lower() in seen:
            raise _HeaderError(name, "duplicate header; names are compared without case")
        seen.add(name.lower())
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADER_BYTES:
        raise ValueError("header names and values must be at most 8 KiB together")
    return headers


def _check_header(name: str, value: str) -> None:
    if not HEADER_NAME.fullmatch(name):
        raise _HeaderError(name, "a header name has 1 to 64 letters, digits and !#$%&'*+-.^_`|~")
    lower = name.lower()
    if lower in _HOP_BY_HOP or lower.startswith(_OURS):
        raise _HeaderError(name, "the service sets this header; remove it")
    if not HEADER_VALUE.fullmatch(value):
        raise _HeaderError(name, "a header value is printable ASCII without spaces at its ends")


def _content_type(new: NewMessage) -> str:
    """The value of the field, or of the header of that name."""
    given = [value for name, value in (new.headers or {}).items() if name.lower() == "content-type"]
    if new.content_type is not None:
        given.append(new.content_type)
    if len(given) > 1:
        raise ValueError("give contentType or the header Content-Type, not both")
    found = given[0] if given else JSON_TYPE
    if not found or not HEADER_VALUE.fullmatch(found):
        raise ValueError("not a content type; write it like text/plain; charset=utf-8")
    charset_of(found)
    return JSON_TYPE if found == JSON_TYPE else found  # the default itself: see _DEFAULTS


def _body(payload: Raw, content_type: str) -> bytes | None:
    sent = bytes(payload)
    # Most payloads are JSON, which is sent as it is.
    if content_type == JSON_TYPE or not sent:
        return sent or None
    return encode_payload(sent, content_type)


# Option → its rule. An option without a rule is stored as it is given.
_RULES: Final[Mapping[str, Callable[[Any], Any]]] = {
    "headers": _headers,
    "timezone": _zone_name,
    "timeout": _timeout,
}
# Name, path in an error and rule of each option that is checked without looking at other fields.
_ONE_BY_ONE: Final = tuple(
    (name, f"/{shown}", _RULES.get(name))
    for name, shown in zip(Request.__struct_fields__, Request.__struct_encode_fields__, strict=True)
    if name in set(OPTIONS) - {"delay", "content_type"}
)
# msgspec leaves out a default by its identity, not by its value.
_DEFAULTS: Final = {field.name: field.default for field in fields(Spec)}
_options_of: Final = attrgetter(*(name for name, _, _ in _ONE_BY_ONE))
_NONE_GIVEN: Final = (None,) * len(_ONE_BY_ONE)
