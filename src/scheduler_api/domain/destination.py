"""Destinations: their limits, rate and pause, and how they are doing."""

import re
from datetime import datetime
from typing import Annotated, Final, Literal, Self

import msgspec
from msgspec import Meta

from scheduler_api.domain.attempt_stats import AttemptStats
from scheduler_api.domain.errors import FieldError, Invalid

MAX_CONCURRENCY: Final = 10_000  # open requests to one destination
MAX_RATE: Final = 100_000  # messages per unit of time

# full: at its concurrency limit; rate: at its rate limit
HoldReason = Literal["paused", "unreachable", "full", "rate"]

_RATE_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_RATE: Final = re.compile(rf"([1-9][0-9]{{0,4}}|{MAX_RATE})/([smhd])")  # MAX_RATE has 6 digits


class NewLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The limits in a request. They replace all earlier limits of the destination."""

    concurrency: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_CONCURRENCY)] | None,
        Meta(
            description="Maximum number of open requests, over all replicas. "
            "Default: DESTINATION_CONCURRENCY.",
            examples=[8],
        ),
    ] = None
    rate: Annotated[
        str | None,
        Meta(
            description="Maximum requests per second, minute, hour or day, evenly spread. "
            "Default: no limit.",
            examples=["10/s", "300/m", "1000/h"],
            extra_json_schema={"pattern": f"^{_RATE.pattern}$"},
        ),
    ] = None
    paused: Annotated[
        bool | None, Meta(description="Whether sending is paused. Default: false.", examples=[True])
    ] = None


class Rate(msgspec.Struct, frozen=True):
    """Messages per unit of time."""

    count: int  # 1 to MAX_RATE
    unit: str  # s, m, h or d

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `10/s`, `300/m`, `1000/h`, `5000/d`. Raises: ValueError."""
        found = _RATE.fullmatch(text)
        if found is None:
            raise ValueError(
                "a rate must be a number up to 100000 and a unit: 10/s, 300/m, 1000/h or 5000/d"
            )
        return cls(int(found[1]), found[2])

    def __str__(self) -> str:
        return f"{self.count}/{self.unit}"

    @property
    def interval_ms(self) -> float:
        """Milliseconds from one message to the next."""
        return _RATE_UNIT_MS[self.unit] / self.count


class Limits(msgspec.Struct, frozen=True):
    """What is set for a destination."""

    concurrency: int | None = None  # open requests; None: the default
    rate: Rate | None = None  # None: no limit
    paused: bool = False  # whether sending is paused

    @property
    def rate_text(self) -> str | None:
        """The rate as text, for example `10/s`."""
        return None if self.rate is None else str(self.rate)


class Hold(msgspec.Struct, frozen=True):
    """Why nothing more is sent to a destination now."""

    reason: HoldReason
    until: datetime | None  # when it ends; None: not by time alone


class Destination(msgspec.Struct, frozen=True):
    """How a destination is doing."""

    name: str  # see destination_name
    limits: Limits | None  # None: nothing is set for it
    concurrency: int  # in force: what is set for it, or the default
    in_flight: int  # open requests
    waiting: int  # messages that are due, but wait for this destination
    connect_failures: int  # consecutive
    hold: Hold | None  # None: more may be sent
    stats: AttemptStats = AttemptStats()  # of this hour and the one before


class DestinationPage(msgspec.Struct, frozen=True):
    """A page of destinations."""

    rows: list[Destination]  # the busiest first
    total: int | None  # number of destinations, if this is the only page
    cursor: str | None  # of the next page; None: this is the last page


def accept_limits(new: NewLimits) -> Limits:
    """The limits that a request sets. Raises: Invalid."""
    try:
        rate = None if new.rate is None else Rate.parse(new.rate)
    except ValueError as error:
        raise Invalid([FieldError("/rate", str(error))]) from None
    return Limits(new.concurrency, rate, bool(new.paused))
