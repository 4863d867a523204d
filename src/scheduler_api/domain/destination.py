"""What a destination may get at a time: limits, rates, pauses; asked by the API and the store."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta

from scheduler_api.domain.attempt_stats import Results
from scheduler_api.domain.errors import FieldError, Invalid

MAX_CONCURRENCY: Final = 10_000  # requests open at once to one destination
MAX_RATE: Final = 100_000  # messages in one unit of time

Reason = Literal["paused", "unreachable", "full", "rate"]

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
_RATE: Final = re.compile(r"([1-9][0-9]{0,5})/([smhd])")


class NewLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a caller may ask for; it replaces all that was asked for before."""

    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_CONCURRENCY)] | None,
        Meta(
            description="Requests open at once, all replicas together. "
            "Default: DESTINATION_CONCURRENCY.",
            examples=[8],
        ),
    ] = None
    rate: Annotated[
        str | None,
        Meta(
            description="Requests in a second, minute, hour or day, evenly spread. "
            "Default: no limit.",
            examples=["10/s", "300/m", "1000/h"],
            extra_json_schema={"pattern": r"^(?:[1-9][0-9]{0,4}|100000)/[smhd]$"},
        ),
    ] = None
    paused: Annotated[bool | None, Meta(description="Whether nothing is sent for now.")] = None


class Rate(msgspec.Struct, frozen=True):
    """So many messages in a unit of time."""

    count: int
    unit: str  # s, m, h or d

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `10/s`, `300/m`, `1000/h`, `5000/d`. Raises ValueError."""
        found = _RATE.fullmatch(text)
        if found is None or int(found[1]) > MAX_RATE:
            raise ValueError("a rate looks like 10/s, 300/m, 1000/h or 5000/d, at most 100000")
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    @property
    def interval_ms(self) -> float:
        """Milliseconds from one message to the next."""
        return _UNITS[self.unit] / timedelta(milliseconds=1) / self.count


class Limits(msgspec.Struct, frozen=True):
    """A destination's own settings."""

    concurrency: int | None = None  # None: the default
    rate: Rate | None = None
    paused: bool = False

    @property
    def rate_text(self) -> str | None:
        """The rate as it was asked for."""
        return None if self.rate is None else str(self.rate)


class Hold(msgspec.Struct, frozen=True):
    """Why nothing more is sent to a destination at this moment."""

    reason: Reason
    until: datetime | None  # None: time alone does not end it


class Destination(msgspec.Struct, frozen=True):
    """How a destination is doing."""

    name: str  # see destination_name
    limits: Limits | None  # None: none of its own
    concurrency: int  # that holds now: its own, or the default
    in_flight: int
    waiting: int  # messages that are due, but parked
    connect_failures: int  # in a row
    hold: Hold | None  # None: more may be sent
    results: Results = Results()  # of this hour and the last


class DestinationPage(msgspec.Struct, frozen=True):
    """Some of the destinations."""

    rows: list[Destination]  # the busiest first
    total: int | None  # of all pages, if this is the only one
    cursor: str | None  # of the next page; None: this is the last


def accept_limits(new: NewLimits) -> Limits:
    """Check what was asked for. Raises: Invalid."""
    try:
        rate = None if new.rate is None else Rate.parse(new.rate)
    except ValueError as error:
        raise Invalid([FieldError("/rate", str(error))]) from None
    return Limits(new.concurrency, rate, bool(new.paused))
