"""The attempts of a message, as the store keeps them: a field of `progress`.

It is the line "attempts crashes outcome at\\n", then the newest attempts as msgpack. A message that
was never tried has no such field.
"""

from collections.abc import Sequence

import msgspec

from scheduler_api.domain.attempt import ATTEMPTS_KEPT, Attempt
from scheduler_api.store.codec.record import from_ms, to_ms


class _StoredAttempt(msgspec.Struct, frozen=True, array_like=True):
    """An Attempt as it is stored. Fields are only ever added at the end."""

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
# Attempts stay as they are stored: a later version may have added fields.
_split_log = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


class Progress(msgspec.Struct, frozen=True):
    """A progress, unpacked except for its log."""

    attempts: int = 0  # made
    crashes: int = 0  # processes that ended while they sent the message
    log: bytes = b""  # the newest attempts, packed


def unpack_progress(progress: bytes) -> Progress:
    """Counts and packed log; zeros for b"", the progress of a message that was never tried."""
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
    """The progress of a message that waits for its next attempt; b"" if it was never tried."""
    if not attempts and not crashes:
        return b""
    last_ms = to_ms(log[-1].started_at) if log else 0
    packed = _encode_log([_stored(attempt) for attempt in log])
    return b"%d %d retry %d\n%b" % (attempts, crashes, last_ms, packed)


def append_attempt(log: bytes, attempt: Attempt) -> bytes:
    """The packed log with one more attempt, without the oldest beyond ATTEMPTS_KEPT."""
    earlier = _split_log(log)[1 - ATTEMPTS_KEPT :] if log else []
    return _encode_log([*earlier, _stored(attempt)])


def _stored(attempt: Attempt) -> tuple[object, ...]:
    """The fields of a _StoredAttempt. Most attempts have no location: it is left out."""
    number, started_at, *rest = msgspec.structs.astuple(attempt)
    if attempt.location is None:
        rest.pop()
    return (number, to_ms(started_at), *rest)
