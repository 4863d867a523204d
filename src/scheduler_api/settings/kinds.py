"""Kinds of values: how each is read from text, checked, and shown as text again.

`read` raises ValueError with a text that names the valid values.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from scheduler_api.domain import time_zone as time_zones
from scheduler_api.domain.duration import parse_duration
from scheduler_api.domain.egress import EgressRules

SIZE_UNITS: Final = {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3} | {  # unit → bytes
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
}
DURATION_UNITS: Final = (("d", 86_400), ("h", 3_600), ("m", 60))  # unit, seconds; longest first


class Kind(NamedTuple):
    """How a setting is read from text, and shown as text again."""

    read: Callable[[str], Any]  # raises ValueError with a text that names the valid values
    show: Callable[[Any], str] = str
    secret: bool = False  # never quoted in an error, shown as stars


def whole_number(low: int, high: int) -> Kind:
    """An int from `low` to `high`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return Kind(read)


def port(low: int) -> Kind:
    """A TCP port from `low`."""
    number = whole_number(low, 65_535)

    def read(text: str) -> int:
        if text.startswith("tcp://"):
            raise ValueError(
                "Kubernetes sets this variable for a Service of that name; "
                "set the port in the Pod, or set enableServiceLinks: false"
            )
        return int(number.read(text))

    return Kind(read)


def flag() -> Kind:
    """A bool, shown as 1 or 0."""
    words = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}

    def read(text: str) -> bool:
        if text.lower() not in words:
            raise ValueError("must be 1 or 0")
        return words[text.lower()]

    return Kind(read, lambda value: str(int(value)))


def one_of(*words: str) -> Kind:
    """One of the words, in any case; read as it is spelled here."""

    def read(text: str) -> str:
        for word in words:
            if word.lower() == text.lower():
                return word
        raise ValueError(f"must be one of {', '.join(words)}")

    return Kind(read)


def duration(low: str, high: str) -> Kind:
    """A timedelta from `low` to `high`."""
    shortest, longest = parse_duration(low), parse_duration(high)

    def read(text: str) -> timedelta:
        found = parse_duration(text)
        if not shortest <= found <= longest:
            raise ValueError(f"must be a duration from {low} to {high}")
        return found

    return Kind(read, _show_duration)


def size(low: str, high: str) -> Kind:
    """Bytes, from `low` to `high`."""

    def read(text: str) -> int:
        found = _bytes(text)
        if found is None or not (_bytes(low) or 0) <= found <= (_bytes(high) or 0):
            raise ValueError(
                f"must be a size from {low} to {high}; units are KiB, MiB, GiB, KB, MB, GB"
            )
        return found

    return Kind(read, _show_size)


def optional_size(low: str, high: str) -> Kind:
    """As `size`, but 0, the default, is shown as an empty text."""
    kind = size(low, high)
    return Kind(kind.read, lambda value: kind.show(value) if value else "")


def key_prefix(text: str) -> str:
    """The first part of a Redis key. Raises: ValueError."""
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", text):
        raise ValueError("must be 1 to 64 letters, digits, '_', '.' or '-'")
    return text


def path_prefix(text: str) -> str:
    """The path of a URL, without a final slash. Raises: ValueError."""
    path = text.rstrip("/")
    if path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ValueError("must be a path that begins with a slash, for example /scheduler")
    return path


def time_zone(text: str) -> str:
    """The name of an IANA zone. Raises: ValueError."""
    time_zones.time_zone(text)  # raises ValueError when there is no such zone
    return text


def token(text: str) -> str:
    """One line, without space around it. Raises: ValueError."""
    if not text.strip().isprintable():
        raise ValueError("must be one line of printable characters")
    return text.strip()


def show_directory(directory: Path) -> str:
    """A relative path begins with `./`."""
    return str(directory) if directory.is_absolute() else f"./{directory}"


def show_egress(rules: EgressRules) -> str:
    """Empty for the default rules."""
    return "" if rules == EgressRules() else repr(rules)


def _bytes(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]{1,12}) ?([a-z]*)", text.lower())
    unit = SIZE_UNITS.get(match[2]) if match else None
    return int(match[1]) * unit if match and unit else None


def _show_duration(value: timedelta) -> str:
    seconds = value.total_seconds()
    for unit, length in DURATION_UNITS:
        if seconds and not seconds % length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:g}s" if seconds else "0"


def _show_size(value: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if not value % SIZE_UNITS[unit.lower()]:
            return f"{value // SIZE_UNITS[unit.lower()]}{unit}"
    return str(value)
