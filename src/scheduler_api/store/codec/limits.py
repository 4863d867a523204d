"""What the store keeps of a destination: its limits, its hold, the counts of its attempts."""

import re
from collections import Counter
from typing import Any, Final

import msgspec

from scheduler_api.domain.attempt_stats import AttemptStats
from scheduler_api.domain.destination import Hold, Limits, Rate
from scheduler_api.store.codec.record import from_ms

_COUNT: Final = re.compile(r"(?:^| )(d|[0-9]+):([0-9]+)(?= |$)", re.ASCII)

_encode_limits = msgspec.json.Encoder().encode
_decode_limits = msgspec.json.Decoder(tuple[int | None, str | None, bool]).decode


def pack_limits(limits: Limits, share: int, partitions: int) -> bytes:
    """The field of `limits` in one of `partitions`; `share`: its part of the concurrency."""
    interval = limits.rate.interval_ms * partitions if limits.rate else 0
    asked = _encode_limits((limits.concurrency, limits.rate_text, limits.paused))
    return b"%d %b %d %b" % (share, f"{interval:.12g}".encode(), limits.paused, asked)


def unpack_limits(field: bytes) -> Limits | None:
    """The limits that were set; None if there are none, or the field is damaged."""
    try:
        concurrency, rate, paused = _decode_limits(field.split(b" ", 3)[3])
    except (IndexError, msgspec.MsgspecError):
        return None
    return Limits(concurrency, Rate.parse(rate) if rate else None, paused)


def unpack_hold(why: bytes, until_ms: int) -> Hold | None:
    """Why no message is sent to a destination; None if messages are sent."""
    if not why:
        return None
    reason: Any = why.decode()
    return Hold(reason, None if until_ms < 0 else from_ms(until_ms))


def unpack_stats(fields: bytes) -> AttemptStats:
    """The sum of the counts in a text of one or more fields of `even` and `odd`."""
    counts = Counter[str]()
    for mark, count in _COUNT.findall(fields.decode(errors="replace")):
        counts[mark] += int(count)
    delivered = counts.pop("d", 0)
    return AttemptStats(delivered, {int(mark): count for mark, count in counts.items()})
