"""Durations: `1h 30m`, `90 seconds`, `PT10M` or a number of seconds, and how they are written."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Final

# Longest duration: 8,000 years of 365 days, in seconds. From 1970 it ends before year 9999.
_MAX_SECONDS: Final = 8_000 * 365 * 86_400
_MAX_DURATION_TEXT: Final = 64  # characters

_NUMBER: Final = r"(\d+(?:[.,]\d+)?)"
_PLAIN_SECONDS: Final = re.compile(_NUMBER, re.ASCII)
_LETTERS: Final = re.compile(
    " ?".join(f"(?:{_NUMBER} ?{unit})?" for unit in ("w", "d", "h", "m", "s", "ms")), re.ASCII
)
_ISO_DURATION: Final = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
# Seconds in a week, day, hour, minute, second, millisecond: the order of the groups above.
_UNIT_SECONDS: Final = tuple(map(Decimal, ("604800", "86400", "3600", "60", "1", "0.001")))

# Unit → its words. Single letters are lower case only, as 1M might mean a month.
_UNIT_WORDS: Final = {
    "w": "weeks?|wks?",
    "d": "days?",
    "h": "hours?|hrs?",
    "m": "minutes?|mins?",
    "s": "seconds?|secs?",
    "ms": "milliseconds?|millis|msecs?",
}
_UNIT_WORD: Final = re.compile(
    "(?<=[0-9 ])(?:"
    + "|".join(f"(?P<{unit}>{words})" for unit, words in _UNIT_WORDS.items())
    + ")(?![a-z])",
    re.IGNORECASE,
)
_MS: Final = timedelta(milliseconds=1)
_CONJUNCTION: Final = re.compile(r"(?<=[a-z])(?:, (?:and )?| and )(?=[0-9])")


def parse_duration(value: str | int | float) -> timedelta:
    """The duration, cut to the millisecond; a number is in seconds. Raises: ValueError."""
    # In Python, True is a number.
    if isinstance(value, bool):
        raise ValueError(_not_a_duration(value))
    seconds = _seconds(value) if isinstance(value, str) else value
    # Written so that NaN fails too.
    if not 0 <= seconds <= _MAX_SECONDS:
        raise ValueError("a duration must be from 0 seconds to 8,000 years")
    # Converted from its decimal digits: 0.29 means 290 ms, not the binary float just below.
    return timedelta(milliseconds=int(Decimal(str(seconds)) * 1000))


def format_duration(span: timedelta) -> str:
    """`1d 2h 3m 4s`: without units that are zero, always with seconds. `span` is not negative."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if n]
    return " ".join([*parts, f"{seconds}s"])


def milliseconds(span: timedelta) -> int:
    """Whole milliseconds."""
    return span // _MS


def _seconds(text: str) -> Decimal:
    text = text if len(text) <= _MAX_DURATION_TEXT else ""
    if _PLAIN_SECONDS.fullmatch(text):
        return _decimal(text)
    found = (
        _LETTERS.fullmatch(text)
        or _ISO_DURATION.fullmatch(text)
        or _LETTERS.fullmatch(_with_letters(text))
    )
    # All parts of both patterns are optional, so they also match text without any number.
    if found is None or not any(found.groups()):
        raise ValueError(_not_a_duration(text))
    pairs = zip(found.groups(), _UNIT_SECONDS, strict=False)
    return sum((_decimal(number) * unit for number, unit in pairs if number), Decimal())


def _with_letters(text: str) -> str:
    """The text with one letter for each unit; text without such words is returned unchanged."""
    return _CONJUNCTION.sub(" ", _UNIT_WORD.sub(lambda found: str(found.lastgroup), text))


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", "."))


def _not_a_duration(value: str | bool) -> str:
    return (
        f"{value!a} is not a duration; examples: 90s, 10m, 1h30m, 2d, 1w, PT10M, or a number of "
        "seconds (months and years have no fixed length)"
    )
