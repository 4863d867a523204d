"""IANA time zones by name; an unknown name is refused with the nearest known one."""

from difflib import get_close_matches
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

_MAX_SHOWN: Final = 64  # characters of an unknown name that an error repeats


@cache
def time_zone(name: str) -> ZoneInfo:
    """The time zone with this IANA name. Raises: ValueError."""
    # Checked before ZoneInfo, which opens files and fails in six ways on odd names.
    if name not in _names():
        raise ValueError(f"{name[:_MAX_SHOWN]!a} is not an IANA time zone{_suggestion(name)}")
    return ZoneInfo(name)


@cache
def _names() -> frozenset[str]:
    return frozenset(available_timezones())


def _suggestion(name: str) -> str:
    wanted = name[:_MAX_SHOWN].casefold().replace(" ", "_")
    # Comparing all 600 names takes 6 ms, too much for a batch of 1,000 wrong names.
    candidates = _names_by_initial().get(_initial(wanted), {})
    near = get_close_matches(wanted, candidates, n=1)
    return f"; did you mean {candidates[near[0]]}?" if near else "; example: America/Sao_Paulo"


@cache
def _names_by_initial() -> dict[str, dict[str, str]]:
    """Initial of the city → folded name → name."""
    names: dict[str, dict[str, str]] = {}
    for name in sorted(_names()):
        names.setdefault(_initial(name.casefold()), {})[name.casefold()] = name
    return names


def _initial(name: str) -> str:
    """The first letter of the city: people know how to spell that part."""
    return name.rpartition("/")[2][:1]
