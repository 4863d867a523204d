"""Bytes and milliseconds here, messages and datetimes outside; asked by all of the store.

A record, the field of `payloads`:

    byte 1       version, 1
    bytes 2–7    created, ms, big end first       (written by create.lua, by the store's clock)
    bytes 8–13   scheduled for, ms                (the same)
    byte 14      where in the URL its authority begins, from 0; it names the destination
    byte 15      the authority's size
    then         the URL, a line feed, the Spec as msgpack

A progress, the field of `progress`: "attempts crashes outcome at\\n", then the newest attempts
as msgpack.

Results, the field of `even` and `odd`: " mark:count" for each mark, written by settle.lua; the mark
d counts what was delivered, a number the attempts in that bucket (domain/attempt_stats.py).
"""

import base64
import binascii
import re
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

import msgspec

from scheduler_api.domain.attempt import ATTEMPTS_KEPT, Attempt
from scheduler_api.domain.attempt_stats import AttemptStats
from scheduler_api.domain.destination import Hold, Limits, Rate
from scheduler_api.domain.errors import FieldError, Invalid
from scheduler_api.domain.message import Accepted, Spec
from scheduler_api.domain.url import destination_name

VERSION: Final = b"\x01"  # of the record's form, its first byte; written by create.lua
_HEAD: Final = 15  # bytes before the URL
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)
_STEP: Final = re.compile(rb"([0-9]{1,4}):([0-9]{1,20}):(.{0,255})", re.DOTALL)
_SPACE: Final = re.compile(rb"\s")
_RESULT: Final = re.compile(r"(?:^| )(d|[0-9]+):([0-9]+)(?= |$)", re.ASCII)

_encode_spec = msgspec.msgpack.Encoder().encode
_decode_spec = msgspec.msgpack.Decoder(Spec).decode

_encode_limits = msgspec.json.Encoder().encode
_decode_limits = msgspec.json.Decoder(tuple[int | None, str | None, bool]).decode


class _StoredAttempt(msgspec.Struct, frozen=True, array_like=True):
    """An Attempt as it is stored; only ever appended to."""

    number: int
    started_ms: int
    duration_ms: int
    status: int | None
    error: str | None
    excerpt: str | None
    lateness_ms: int
    location: str | None = None


_encode_log = msgspec.msgpack.Encoder().encode
_decode_log = msgspec.msgpack.Decoder(list[_StoredAttempt]).decode
# Each as it is: a later version may have said more of it.
_split_log = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Record(msgspec.Struct, frozen=True):
    """What a record says."""

    created_ms: int
    scheduled_ms: int
    url: str
    destination: bytes
    spec: Spec


class Progress(msgspec.Struct, frozen=True):
    """What a progress says."""

    attempts: int = 0
    crashes: int = 0
    log: bytes = b""  # the attempts, still packed


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970."""
    return (at - _EPOCH) // _MS


def from_ms(ms: int) -> datetime:
    """The instant, aware, UTC."""
    return _EPOCH + ms * _MS


def pack_tail(accepted: Accepted) -> bytes:
    """The record from its 14th byte on; what stands before is written by create.lua."""
    url = accepted.url
    place = bytes((url.start, len(url.authority)))
    return b"%b%b\n%b" % (place, url.url.encode(), _encode_spec(accepted.spec))


def pack_scheduled(scheduled_ms: int) -> bytes:
    """The record's bytes 8–13."""
    return scheduled_ms.to_bytes(6)


def unpack_record(record: bytes) -> Record:
    """The inverse, of a whole record. Raises: ValueError, msgspec.MsgspecError."""
    if record[:1] != VERSION:
        raise ValueError(f"a record of version {record[:1]!r} is not known")
    end = record.index(b"\n", _HEAD)
    created, scheduled, url = unpack_head(record[: end + 1])
    start, size = record[_HEAD - 2 : _HEAD]  # as destination_of has it, without another call
    destination = _named(record[_HEAD + start : _HEAD + start + size])
    return Record(created, scheduled, url, destination, _decode_spec(record[end + 1 :]))


def unpack_head(head: bytes) -> tuple[int, int, str]:
    """Created ms, scheduled ms and URL from a record that ends after its URL's line feed."""
    created, scheduled = head[1:7], head[7:13]
    return int.from_bytes(created), int.from_bytes(scheduled), head[_HEAD:-1].decode()


def destination_of(record: bytes) -> bytes:
    """The destination's name; b'?' for what is no record, as in lua/lib/record.lua."""
    if len(record) < _HEAD:
        return b"?"
    start, size = record[_HEAD - 2 : _HEAD]
    return _named(record[_HEAD + start : _HEAD + start + size])


@lru_cache(maxsize=4096)
def _named(authority: bytes) -> bytes:
    if not authority or _SPACE.search(authority):
        return b"?"
    return destination_name(authority.decode("latin-1")).encode("latin-1")


def unpack_progress(progress: bytes) -> Progress:
    """Counts and packed log; of a message never tried: zeros."""
    if not progress:
        return Progress()
    line, _, log = progress.partition(b"\n")
    attempts, crashes, _ = line.split(b" ", 2)
    return Progress(int(attempts), int(crashes), log)


def unpack_log(log: bytes) -> list[Attempt]:
    """The attempts, oldest first."""
    return [_unstored(attempt) for attempt in _decode_log(log)] if log else []


def _unstored(stored: _StoredAttempt) -> Attempt:
    number, started_ms, *rest = msgspec.structs.astuple(stored)
    return Attempt(number, from_ms(started_ms), *rest)


def pack_progress(attempts: int, crashes: int, log: Sequence[Attempt]) -> bytes:
    """The progress of a message that is to be retried; b'' of one that was never tried."""
    if not attempts and not crashes:
        return b""
    last_ms = to_ms(log[-1].started_at) if log else 0
    packed = _encode_log([_stored(attempt) for attempt in log])
    return b"%d %d retry %d\n%b" % (attempts, crashes, last_ms, packed)


def append_attempt(log: bytes, attempt: Attempt) -> bytes:
    """The packed log with one more attempt; the oldest goes when there are too many."""
    earlier = _split_log(log)[1 - ATTEMPTS_KEPT :] if log else []
    return _encode_log([*earlier, _stored(attempt)])


def _stored(attempt: Attempt) -> tuple[object, ...]:
    """A _StoredAttempt without the location that most attempts lack."""
    number, started_at, *rest = msgspec.structs.astuple(attempt)
    if attempt.location is None:
        rest.pop()
    return (number, to_ms(started_at), *rest)


def pack_limits(limits: Limits, share: int, partitions: int) -> bytes:
    """The field of `limits` in one of so many partitions; `share`: its part of the concurrency."""
    interval = limits.rate.interval_ms * partitions if limits.rate else 0
    asked = _encode_limits((limits.concurrency, limits.rate_text, limits.paused))
    return b"%d %b %d %b" % (share, f"{interval:.12g}".encode(), limits.paused, asked)


def unpack_limits(field: bytes) -> Limits | None:
    """What was asked for; None if the destination has no settings, or what it has is damaged."""
    try:
        concurrency, rate, paused = _decode_limits(field.split(b" ", 3)[3])
    except (IndexError, msgspec.MsgspecError):
        return None
    return Limits(concurrency, Rate.parse(rate) if rate else None, paused)


def unpack_hold(why: bytes, until_ms: int) -> Hold | None:
    """Why a destination gets nothing more; None if it does."""
    if not why:
        return None
    reason: Any = why.decode()
    return Hold(reason, None if until_ms < 0 else from_ms(until_ms))


def unpack_stats(fields: bytes) -> AttemptStats:
    """What attempts came to; of several fields, one after the other, together."""
    counts = Counter[str]()
    for mark, count in _RESULT.findall(fields.decode(errors="replace")):
        counts[mark] += int(count)
    delivered = counts.pop("d", 0)
    return AttemptStats(delivered, {int(mark): count for mark, count in counts.items()})


def pack_cursor(due_ms: int, message_id: bytes) -> str:
    """The position after a row, opaque to callers."""
    return _packed_cursor(b"%d:%b" % (due_ms, message_id))


def unpack_cursor(cursor: str) -> tuple[int, bytes]:
    """The inverse. Raises: Invalid."""
    due_ms, separator, message_id = _unpacked_cursor(cursor).partition(b":")
    try:
        if separator and message_id and len(due_ms) <= 15:
            return int(due_ms), message_id
    except ValueError:
        pass
    raise _no_cursor()


def pack_step(place: int, scan: int, name: bytes) -> str:
    """The position in a list of destinations, opaque to callers."""
    return _packed_cursor(b"%d:%d:%b" % (place, scan, name))


def unpack_step(cursor: str, last_place: int) -> tuple[int, int, bytes]:
    """The inverse. Raises: Invalid."""
    found = _STEP.fullmatch(_unpacked_cursor(cursor))
    if found is None or int(found[1]) > last_place or int(found[2]) >= 1 << 64:
        raise _no_cursor()
    return int(found[1]), int(found[2]), found[3]


def _packed_cursor(position: bytes) -> str:
    return base64.urlsafe_b64encode(position).decode().rstrip("=")


def _unpacked_cursor(cursor: str) -> bytes:
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _no_cursor() from None


def _no_cursor() -> Invalid:
    return Invalid([FieldError("?cursor", "take the cursor from nextCursor of the page before")])
