"""Instants, durations and time zones as people write them; asked by the API and the settings."""

import re
from bisect import bisect_left
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from scheduler_api.domain.moment_spellings import usual_duration, usual_instant

# Longest text that is read, in characters: a full instant has 35.
_LONGEST = 64

# Longest instant with a zone and tags in brackets, in characters.
_MAX_ANNOTATED = 128

# Longest duration: 8,000 years of 365 days, in seconds; from 1970 it still ends before year 9999.
_LONGEST_SECONDS = 8_000 * 365 * 86_400

# Of what Python reads as ISO 8601 only this much: no weeks, no days of the year.
_TIME = r"(?P<hour>\d\d):\d\d(?::\d\d(?:[.,]\d+)?)?"
_OFFSET = r"(?P<offset>[Zz]|[+-](?P<hours>\d\d)(?::?(?P<minutes>\d\d))?)?"
_INSTANT = re.compile(rf"\d{{4}}-\d\d-\d\d(?:[Tt ]{_TIME}{_OFFSET})?", re.ASCII)

# Offsets that only say that local time is unknown (RFC 9557, section 2.2).
_UNKNOWN_OFFSETS = frozenset(("Z", "z", "-00:00", "-0000", "-00"))
_FIXED_ZONE = re.compile(r"[+-](?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)

_NUMBER = r"(\d+(?:[.,]\d+)?)"
_SECONDS = re.compile(_NUMBER, re.ASCII)
_WORDS = re.compile(
    " ?".join(f"(?:{_NUMBER} ?{unit})?" for unit in ("w", "d", "h", "m", "s", "ms")), re.ASCII
)
_ISO = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=\d)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
# Seconds in a week, day, hour, minute, second, millisecond: the order of the groups above.
_UNITS = tuple(map(Decimal, ("604800", "86400", "3600", "60", "1", "0.001")))


def parse_instant(text: str, zone: str) -> datetime:
    """The instant that `text` names, in UTC and cut to the millisecond.

    Without an offset it is local time in the IANA zone named `zone`. Raises ValueError.
    """
    found, annotation = _INSTANT.fullmatch(text) if len(text) <= _LONGEST else None, None
    if found is None:
        found, annotation = _read_other_spelling(text)
    try:
        at = _to_utc(found, zone) if annotation is None else _to_utc_in(annotation, found)
    except OverflowError:
        at = None
    if at is None or at.year < 1970:
        raise ValueError(f"{text!a} is outside the years 1970 to 9999")
    return at


def instant_of(local: datetime, where: tzinfo) -> datetime:
    """The UTC instant at which clocks in `where` show the naive `local`.

    In a gap: the first instant after it; in a fold: the earlier one. OverflowError past the ends
    of the calendar.
    """
    at = local.replace(tzinfo=where, fold=0).astimezone(UTC)
    if at.astimezone(where).replace(tzinfo=None) == local:
        return at
    return _end_of_gap(local, where)


def parse_duration(value: str | int | float) -> timedelta:
    """The duration named, cut to the millisecond; a number is seconds. Raises ValueError."""
    # To Python, True is a number.
    if isinstance(value, bool):
        raise ValueError(_not_a_duration(value))
    seconds = _read_duration(value) if isinstance(value, str) else value
    # Written so that NaN fails too.
    if not 0 <= seconds <= _LONGEST_SECONDS:
        raise ValueError("a duration must be from 0 seconds to 8,000 years")
    # By way of its digits: 0.29 is meant as 290 ms, not as the binary float just below.
    return timedelta(milliseconds=int(Decimal(str(seconds)) * 1000))


@cache
def zone(name: str) -> ZoneInfo:
    """The time zone with this IANA name. Raises ValueError with the nearest known name."""
    # Asked by name first: ZoneInfo itself opens files, and fails in six ways on odd names.
    if name not in _zone_names():
        raise ValueError(f"{name[:_LONGEST]!a} is not an IANA time zone{_nearest(name)}")
    return ZoneInfo(name)


def format_instant(at: datetime) -> str:
    """`2026-04-15T02:41:45+00:00`, with milliseconds only when they are not zero."""
    # By msgspec, which takes a quarter of the time of isoformat(); it ends in Z.
    text: str = msgspec.to_builtins(at.astimezone(UTC))
    return f"{text[:23] if at.microsecond >= 1000 else text[:19]}+00:00"


def format_duration(span: timedelta) -> str:
    """`1d 2h 3m 4s`: units that are zero are left out, seconds never; `span` is not negative."""
    minutes, seconds = divmod(int(span.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [f"{n}{unit}" for n, unit in ((days, "d"), (hours, "h"), (minutes, "m")) if n]
    return " ".join([*parts, f"{seconds}s"])


def _read_other_spelling(text: str) -> tuple[re.Match[str], str | None]:
    """The instant, and the zone that it is annotated with."""
    usual, annotation = usual_instant(text) if len(text) <= _MAX_ANNOTATED else ("", None)
    found = _INSTANT.fullmatch(usual)
    if found is None:
        shown = f"{text!a} is" if text and len(text) <= _MAX_ANNOTATED else "this is"
        raise ValueError(f"{shown} not an ISO 8601 instant such as 2026-04-15T02:41:45Z")
    return found, annotation


def _to_utc(found: re.Match[str], zone_name: str) -> datetime:
    at = _as_written(found)
    return instant_of(at, zone(zone_name)) if at.tzinfo is None else at.astimezone(UTC)


def _to_utc_in(annotation: str, found: re.Match[str]) -> datetime:
    """As `_to_utc`; an offset must be the one of the annotated zone at that time."""
    where = _annotated_zone(annotation)
    at = _as_written(found)
    if at.tzinfo is None:
        return instant_of(at, where)
    there = at if found["offset"] in _UNKNOWN_OFFSETS else at.astimezone(where)
    # Until 1972 a zone had seconds in its offset, which is written without them.
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
    return zone(name)


def _as_written(found: re.Match[str]) -> datetime:
    """Cut to the millisecond; with the offset, if one was given."""
    # Python 3.13 and later read 24:00 as the next midnight; an older one would not.
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


def _read_duration(text: str) -> Decimal:
    text = text if len(text) <= _LONGEST else ""
    if _SECONDS.fullmatch(text):
        return _decimal(text)
    found = _WORDS.fullmatch(text) or _ISO.fullmatch(text) or _WORDS.fullmatch(usual_duration(text))
    # Both patterns are all options, so they match nothing at all as well.
    if found is None or not any(found.groups()):
        raise ValueError(_not_a_duration(text))
    pairs = zip(found.groups(), _UNITS, strict=False)
    return sum((_decimal(number) * unit for number, unit in pairs if number), Decimal())


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", "."))


def _not_a_duration(value: str | bool) -> str:
    return (
        f"{value!a} is not a duration such as 90s, 10m, 1h30m, 2d, 1w, PT10M or a number of "
        "seconds (months and years have no fixed length)"
    )


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def _nearest(name: str) -> str:
    wanted = name[:_LONGEST].casefold().replace(" ", "_")
    # All 600 names would take 6 ms, which a batch of 1,000 wrong ones must not cost.
    near = get_close_matches(wanted, _names_by_initial().get(_initial(wanted), {}), n=1)
    if not near:
        return " such as America/Sao_Paulo"
    return f"; did you mean {_names_by_initial()[_initial(wanted)][near[0]]}?"


@cache
def _names_by_initial() -> dict[str, dict[str, str]]:
    names: dict[str, dict[str, str]] = {}
    for name in sorted(_zone_names()):
        names.setdefault(_initial(name.casefold()), {})[name.casefold()] = name
    return names


def _initial(name: str) -> str:
    """The first letter of the city, the part that people know how to spell."""
    return name.rpartition("/")[2][:1]
