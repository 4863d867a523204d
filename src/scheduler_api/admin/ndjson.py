"""A message as a line of NDJSON, and a message of the original service."""

import base64
import binascii
from typing import Annotated, Final, TypeVar

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType, field
from msgspec.structs import replace

from scheduler_api.domain.accept import accept, check_delay
from scheduler_api.domain.attempt import ATTEMPTS_KEPT, Attempt
from scheduler_api.domain.content_type import JSON_TYPE
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.errors import Invalid
from scheduler_api.domain.field_errors import field_error
from scheduler_api.domain.instant import format_instant, parse_instant
from scheduler_api.domain.message import (
    Accepted,
    CheckedRequest,
    Method,
    NewMessage,
    options_of,
    payload,
)
from scheduler_api.store.audit.dump import Dumped, Position, Restorable
from scheduler_api.store.codec.record import from_ms, to_ms

Decoded = TypeVar("Decoded", bound=msgspec.Struct)

UTC: Final = "UTC"
Count = Annotated[int, Meta(ge=0)]


class Line(
    CheckedRequest,
    frozen=True,
    kw_only=True,
    rename="camel",
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """A pending message. The names are those of the API where it has one."""

    method: Method = "POST"
    headers: dict[str, str] = field(default_factory=dict)
    payload: Raw | UnsetType = UNSET
    payload_base64: str | UnsetType = UNSET  # instead, where the bytes would break the line
    schedule_to: str  # what it was first scheduled for
    next_attempt: str | UnsetType = UNSET  # UNSET: at schedule_to
    created_at: str
    attempts_made: Count = 0
    crashes: Count = 0
    attempts: list[Attempt] = field(default_factory=list)
    # Written before schema 2 instead of `delay` and `timeout`, which are in seconds. Only read.
    delay_ms: Count | None = None
    timeout_ms: Count | None = None


class _Original(msgspec.Struct, frozen=True, rename="camel"):
    """A message of the original service. Further fields are ignored."""

    webhook_url: str
    schedule_to: str
    payload: Raw = field(default_factory=Raw)
    id: str | UnsetType = UNSET


_encode = msgspec.json.Encoder().encode
_LINE: Final = msgspec.json.Decoder(Line)
_ORIGINAL: Final = msgspec.json.Decoder(_Original)


def pack_line(message: Dumped) -> bytes:
    """The line with its line feed. Its payload is byte for byte what is sent."""
    record, spec = message.record, message.record.spec
    due_ms = message.due_ms if message.due_ms != record.scheduled_ms else None
    given = any(name.lower() == "content-type" for name in spec.headers)
    body = payload(spec)
    breaks = isinstance(body, Raw) and any(byte in bytes(body) for byte in b"\r\n")
    options = options_of(spec)
    if given or spec.content_type == JSON_TYPE:
        del options["content_type"]
    line = Line(
        id=message.id,
        webhook_url=spec.given_url or record.url,
        schedule_to=format_instant(from_ms(record.scheduled_ms)),
        created_at=format_instant(from_ms(record.created_ms)),
        next_attempt=UNSET if due_ms is None else format_instant(from_ms(due_ms)),
        payload=UNSET if body is UNSET or breaks else Raw(_encode(body)),
        payload_base64=base64.b64encode(spec.body or b"").decode() if breaks else UNSET,
        attempts_made=message.attempts,
        crashes=message.crashes,
        attempts=message.log,
        **options,
    )
    return _encode(line) + b"\n"


def unpack_line(text: bytes, rules: EgressRules) -> Restorable:
    """The message of a line, after the checks of the API. Raises: ValueError, Invalid."""
    text.decode()  # raises for bytes that are not UTF-8: msgspec does not look into raw values
    line = _in_seconds(_decode(_LINE, text))
    accepted = _accepted(_asked(line), UTC, rules)
    delay = None if line.delay is None else check_delay(line.delay)
    scheduled = to_ms(parse_instant(line.schedule_to, UTC))
    return Restorable(
        id=line.id,
        due_ms=_due_ms(line),
        created_ms=to_ms(parse_instant(line.created_at, UTC)),
        scheduled_ms=scheduled,
        accepted=replace(accepted, spec=replace(accepted.spec, delay=delay)),
        attempts=line.attempts_made,
        crashes=line.crashes,
        log=line.attempts[-ATTEMPTS_KEPT:],
    )


def _decode(decoder: msgspec.json.Decoder[Decoded], text: bytes) -> Decoded:
    """Raises: Invalid (JSON that the decoder refuses), msgspec.DecodeError (not JSON)."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError as error:
        names = decoder.type.__struct_encode_fields__
        raise Invalid([field_error(str(error), decoder.type, names)]) from None


def _in_seconds(line: Line) -> Line:
    """The line with its durations in the members of today."""
    delay = line.delay if line.delay_ms is None else line.delay_ms / 1000
    timeout = line.timeout if line.timeout_ms is None else line.timeout_ms / 1000
    return replace(line, delay=delay, timeout=timeout)


def position_of(text: bytes) -> Position:
    """The position of a line in an export. Raises: msgspec.MsgspecError, ValueError."""
    line = _LINE.decode(text)
    return _due_ms(line), line.id.encode()


def _due_ms(line: Line) -> int:
    due = line.schedule_to if line.next_attempt is UNSET else line.next_attempt
    return to_ms(parse_instant(due, UTC))


def _asked(line: Line) -> NewMessage:
    options = options_of(line) | {"delay": None}  # a request has scheduleTo or delay
    return NewMessage(
        id=line.id,
        webhook_url=line.webhook_url,
        payload=_payload(line),
        schedule_to=line.schedule_to,
        **options,
    )


def _payload(line: Line) -> Raw:
    if line.payload_base64 is UNSET:
        return Raw() if line.payload is UNSET else line.payload
    try:
        body = base64.b64decode(line.payload_base64, validate=True)
    except binascii.Error:
        raise ValueError("payloadBase64 must be base64") from None
    msgspec.json.decode(body)
    return Raw(body)


def unpack_original(key: str, value: bytes, zone: str, rules: EgressRules) -> Restorable:
    """The message that the original service stored under `key`, which is its id.

    `zone`: of a scheduleTo without an offset. Raises: ValueError, Invalid.
    """
    value.decode()  # as in unpack_line
    original = _decode(_ORIGINAL, value)
    asked = NewMessage(
        webhook_url=original.webhook_url,
        id=key,
        payload=original.payload,
        schedule_to=original.schedule_to,
    )
    accepted = _accepted(asked, zone, rules)
    scheduled = to_ms(parse_instant(original.schedule_to, zone))
    return Restorable(key, scheduled, None, scheduled, accepted)


def _accepted(asked: NewMessage, zone: str, rules: EgressRules) -> Accepted:
    return accept(asked, zone, rules.refusal_of_literal)
