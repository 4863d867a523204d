"""Instants: ISO 8601 text to UTC and back, in milliseconds of the years 1970 to 9999.

Local times are read in an IANA time zone. Common variants of ISO 8601 are accepted: the basic
format, a space before the offset, and a time zone in brackets (RFC 9557).
"""

import re
from bisect import bisect_left
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import msgspec

from scheduler_api.domain.time_zone import time_zone

_MAX_INSTANT_TEXT: Final = 64  # characters; a complete instant has 35
_MAX_ANNOTATED_TEXT: Final = 128  # characters of an instant with a zone and tags in brackets

# The part of ISO 8601 that is accepted: no weeks, no days of the year.
_TIME: Final = r"(?P<hour>\d\d):\d\d(?::\d\d(?:[.,]\d+)?)?"
_OFFSET: Final = r"(?P<offset>[Zz]|[+-](?P<hours>\d\d)(?::?(?P<minutes>\d\d))?)?"
_INSTANT: Final = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[Tt ]{_TIME}{_OFFSET})?", re.ASCII)

# What most callers send: read at once, in half of the time.
_USUAL: Final = re.compile(
    r"(?:19[789]|2\d\d)\d-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\d(?:\.\d{3})?Z", re.ASCII
).fullmatch

# ISO 8601's basic format, without hyphens and colons: date, time, offset and annotation.
_BASIC_FORMAT: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(?:(\d\d(?:[.,]\d+)?))?((?:[Zz]| ?[ +-].+)?)", re.ASCII
)
_SPACED_OFFSET: Final = re.compile(r"(?<=\d) (?=[Zz]$|[+-]\d)", re.ASCII)

# RFC 9557: after the instant a zone in brackets, then tags like [u-ca=gregory].
_ANNOTATED: Final = re.compile(r"([^\[]*)(?:\[!?([^\[\]=!]+)\])?((?:\[[^\[\]=]+=[^\[\]]*\])*)")
_CRITICAL_TAG: Final = re.compile(r"\[!(?!u-ca=(?:gregory|iso8601)\]).*?\]")
# Offsets that say only that the local time is unknown (RFC 9557, section 2.2).
_UNKNOWN_OFFSETS: Final = frozenset(("Z", "z", "-00:00", "-0000", "-00"))
_FIXED_ZONE: Final = re.compile(r"[+-](?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)


def parse_instant(text: str, zone: str) -> datetime:
    """The instant in UTC, cut to the millisecond. Raises: ValueError.

    Text without an offset is local time in the IANA zone `zone`.
    """
    if _USUAL(text):
        with suppress(ValueError):  # not in the calendar: the error is raised below
            return datetime.fromisoformat(text)
    found = _INSTANT.fullmatch(text) if len(text) <= _MAX_INSTANT_TEXT else None
    annotation = None
    if found is None:
        found, annotation = _read_variant(text)
    try:
        at = _to_utc(found, zone) if annotation is None else _to_utc_in(annotation, found)
    except OverflowError:
        at = None
    if at is None or at.year < 1970:
        raise ValueError(f"{text!a} is outside the years 1970 to 9999")
    return at


def instant_of(local: datetime, where: tzinfo) -> datetime:
    """The UTC instant at which clocks in `where` show the naive time `local`.

    For a time that clocks skip: the first instant after the gap. For a time that clocks show
    twice: the first. Raises: OverflowError outside of Python's calendar.
    """
    at = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if at.astimezone(where).replace(tzinfo=None) == local:
        return at
    return _end_of_gap(local, where)


def format_instant(at: datetime) -> str:
    """`2026-04-15T02:41:45+00:00`, with milliseconds only when they are not zero."""
    # msgspec takes a quarter of the time of isoformat(). Its text ends in Z.
    text: str = msgspec.to_builtins(at.astimezone(UTC))
    return f"{text[:23] if at.microsecond >= 1000 else text[:19]}+00:00"


def _read_variant(text: str) -> tuple[re.Match[str], str | None]:
    """The instant, and the zone in brackets after it."""
    plain, annotation = _normalized(text) if len(text) <= _MAX_ANNOTATED_TEXT else ("", None)
    found = _INSTANT.fullmatch(plain)
    if found is None:
        shown = f"{text!a} is" if text and len(text) <= _MAX_ANNOTATED_TEXT else "this is"
        raise ValueError(f"{shown} not an ISO 8601 instant; example: 2026-04-15T02:41:45Z")
    return found, annotation


def _normalized(text: str) -> tuple[str, str | None]:
    """The instant in ISO 8601's extended format, and the time zone in brackets after it.

    Text that is no known variant is returned unchanged. Raises: ValueError.
    """
    plain, annotation = _split_annotations(text)
    if basic := _BASIC_FORMAT.fullmatch(plain):
        year, month, day, hour, minute, second, rest = basic.groups(default="")
        plain = f"{year}-{month}-{day}T{hour}:{minute}{second and ':'}{second}{rest}"
    return _SPACED_OFFSET.sub("", plain, count=1), annotation


def _split_annotations(text: str) -> tuple[str, str | None]:
    found = _ANNOTATED.fullmatch(text)
    if found is None:
        return text, None
    # Tags may be ignored, except those that an exclamation mark marks as critical.
    if critical := _CRITICAL_TAG.search(found[3]):
        raise ValueError(f"{critical[0]!a} in {text!a} is not supported: remove it")
    return found[1], found[2]


def _to_utc(found: re.Match[str], zone: str) -> datetime:
    at = _as_written(found)
    return instant_of(at, time_zone(zone)) if at.tzinfo is None else at.astimezone(UTC)


def _to_utc_in(annotation: str, found: re.Match[str]) -> datetime:
    """As `_to_utc`; the offset must be the one that the annotated zone has at that time."""
    where = _annotated_zone(annotation)
    at = _as_written(found)
    if at.tzinfo is None:
        return instant_of(at, where)
    there = at if found["offset"] in _UNKNOWN_OFFSETS else at.astimezone(where)
    # Until 1972 some offsets had seconds; text has them without seconds.
    if abs(there.replace(tzinfo=None) - at.replace(tzinfo=None)) >= timedelta(minutes=1):
        right = there.isoformat(timespec="minutes")[16:]
        raise ValueError(
            f"the offset {found['offset']} is wrong for {annotation}, which has {right} at that "
            "time: correct the offset or remove it"
        )
    return at.astimezone(UTC)


def _annotated_zone(name: str) -> tzinfo:
    if _FIXED_ZONE.fullmatch(name):
        return datetime.strptime(name, "%z").tzinfo or UTC
    return time_zone(name)


def _as_written(found: re.Match[str]) -> datetime:
    """Cut to the millisecond; aware if the text has an offset, else naive."""
    # Python 3.13 and later read 24:00 as the next midnight; older versions refuse it.
    if found["hour"] == "24":
        raise ValueError("hours go from 00 to 23: write 24:00 as 00:00 of the next day")
    if int(found["hours"] or 0) > 23 or int(found["minutes"] or 0) > 59:
        raise ValueError(f"the offset of {found[0]!a} must be between -23:59 and +23:59")
    try:
        at = datetime.fromisoformat(found[0].upper())
    except ValueError as error:
        raise ValueError(f"{found[0]!a} is not in the calendar: {error}") from None
    too_fine = at.microsecond % 1000
    return at - timedelta(microseconds=too_fine) if too_fine else at


def _end_of_gap(local: datetime, where: tzinfo) -> datetime:
    def is_past(second: int) -> bool:
        return datetime.fromtimestamp(second, where).replace(tzinfo=None) > local

    # The two readings of a time that no clock shows lie on either side of the change.
    first = int(local.replace(tzinfo=where, fold=1).timestamp())
    last = int(local.replace(tzinfo=where, fold=0).timestamp()) + 1
    change = first + bisect_left(range(first, last), True, key=is_past)
    return datetime.fromtimestamp(change, UTC)
