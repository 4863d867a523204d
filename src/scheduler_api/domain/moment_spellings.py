"""Less usual spellings of instants and durations, rewritten as domain/moments.py reads them."""

import re
from typing import Final

# Without hyphens and colons (ISO 8601, basic format); the date, the time, what follows.
_BASIC: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)[Tt](\d\d)(\d\d)(?:(\d\d(?:[.,]\d+)?))?((?:[Zz]| ?[ +-].+)?)", re.ASCII
)
_SPACED_OFFSET: Final = re.compile(r"(?<=\d) (?=[Zz]$|[+-]\d)", re.ASCII)

# RFC 9557: after the instant a zone in brackets, then tags such as [u-ca=gregory].
_ANNOTATED: Final = re.compile(r"([^\[]*)(?:\[!?([^\[\]=!]+)\])?((?:\[[^\[\]=]+=[^\[\]]*\])*)")
_CRITICAL_TAG: Final = re.compile(r"\[!(?!u-ca=(?:gregory|iso8601)\]).*?\]")

# Single letters stay as they are: they are lower case only, as 1M might mean a month.
_UNITS: Final = {
    "w": "weeks?|wks?",
    "d": "days?",
    "h": "hours?|hrs?",
    "m": "minutes?|mins?",
    "s": "seconds?|secs?",
    "ms": "milliseconds?|millis|msecs?",
}
_UNIT: Final = re.compile(
    "(?<=[0-9 ])(?:" + "|".join(f"(?P<{unit}>{words})" for unit, words in _UNITS.items()) + ")"
    "(?![a-z])",
    re.IGNORECASE,
)
_CONJUNCTION: Final = re.compile(r"(?<=[a-z])(?:, (?:and )?| and )(?=[0-9])")


def usual_instant(text: str) -> tuple[str, str | None]:
    """The instant in ISO 8601's extended format, and the time zone in brackets after it.

    Text that has no such spelling stays as it is. Raises: ValueError.
    """
    plain, annotation = _split_annotations(text)
    if basic := _BASIC.fullmatch(plain):
        year, month, day, hour, minute, second, rest = basic.groups(default="")
        plain = f"{year}-{month}-{day}T{hour}:{minute}{second and ':'}{second}{rest}"
    return _SPACED_OFFSET.sub("", plain, count=1), annotation


def usual_duration(text: str) -> str:
    """The duration with one letter for each unit; other text stays as it is."""
    return _CONJUNCTION.sub(" ", _UNIT.sub(lambda found: str(found.lastgroup), text))


def _split_annotations(text: str) -> tuple[str, str | None]:
    found = _ANNOTATED.fullmatch(text)
    if found is None:
        return text, None
    # All tags may be ignored but those that are marked as critical by an exclamation mark.
    if critical := _CRITICAL_TAG.search(found[3]):
        raise ValueError(f"{critical[0]!a} in {text!a} is not supported: remove it")
    return found[1], found[2]
