"""/destinations: list, get, put, delete."""

from typing import Annotated, Final, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.body_reader import read_body
from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.http import JSON, Instant, decode, query
from scheduler_api.domain.destination import Destination, Limits, NewLimits, accept_limits
from scheduler_api.domain.errors import (
    DestinationNotFound,
    FieldError,
    Invalid,
    Malformed,
    PayloadTooLarge,
)
from scheduler_api.domain.instant import format_instant
from scheduler_api.domain.url import parse_destination

log = structlog.get_logger()

_NEW: Final = msgspec.json.Decoder(NewLimits)
_NEW_FIELDS: Final = NewLimits.__struct_encode_fields__


class DestinationQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of the list."""

    limit: Annotated[int, Meta(ge=1, le=1000, description="Destinations on a page.")] = 1000
    cursor: Annotated[
        str | UnsetType,
        Meta(description="`nextCursor` of the page before; the first page without it."),
    ] = UNSET


_QUERY_FIELDS: Final = DestinationQuery.__struct_encode_fields__


class DestinationView(msgspec.Struct, rename="camel"):
    """How a destination is doing, and what it may get."""

    destination: str
    state: Literal["open", "paused", "full", "rate", "unreachable"]
    next_send: (
        Instant | None
    )  # when a rate or the next probe lets one go; null: now, or not by time
    in_flight: int
    waiting: int  # due messages held back
    connect_failures: int  # in a row
    attempts: int  # in this hour and the last, as the next three
    success_rate: float | None  # of the attempts, 0–1; null: there were none
    p50_ms: int | None  # half of the attempts took so long at the most, within 12 %
    p99_ms: int | None
    concurrency: int  # that holds: its own, or DESTINATION_CONCURRENCY
    rate: str | None
    paused: bool
    default: bool  # whether it has no settings of its own


class DestinationList(msgspec.Struct, rename="camel"):
    """A page of the destinations with load or settings, the busiest first."""

    destinations: list[DestinationView]
    count: int  # on this page
    total: int | None  # of all, if they are on one page; null: unknown
    next_cursor: str | None  # null: this is the last page


@endpoint("read", {200: DestinationList}, query=DestinationQuery, errors=(Invalid,))
async def list_(request: Request) -> Response:
    """List destinations with load or settings.

    Those with load and without settings come first, then those with settings; on a page the busiest
    come first. A page may have fewer than `limit` although there is a next one. Load that moves
    between two pages may be missing or shown twice; a destination with settings is shown once.
    """
    asked = query(request, DestinationQuery, _QUERY_FIELDS)
    page = await context(request).store.destinations.list(asked.limit, asked.cursor or None)
    shown = [_view(destination) for destination in page.rows]
    return JSON(DestinationList(shown, len(shown), page.total, page.cursor))


@endpoint("read", {200: DestinationView}, errors=(DestinationNotFound,))
async def get(request: Request) -> Response:
    """Show how a destination is doing."""
    name = _name_or_nothing(request)
    return JSON(_view(await context(request).store.destinations.get(name)))


@endpoint(
    "admin", {200: DestinationView}, body=NewLimits, errors=(Malformed, PayloadTooLarge, Invalid)
)
async def put(request: Request) -> Response:
    """Set how much a destination may get, or pause it; replaces what was set before."""
    ours = context(request)
    name = _name(request)
    body = await read_body(request, ours.max_body, ours.bodies)
    limits = accept_limits(decode(body, _NEW, _NEW_FIELDS))
    destination = await ours.store.destinations.set_limit(name, limits)
    log.info("destination_limits_set", destination=name, **_facts(limits))
    return JSON(_view(destination))


@endpoint("admin", {200: DestinationView}, errors=(DestinationNotFound,))
async def delete(request: Request) -> Response:
    """Take a destination's settings away: the default holds again."""
    name = _name_or_nothing(request)
    destination = await context(request).store.destinations.set_limit(name, None)
    log.info("destination_limits_cleared", destination=name)
    return JSON(_view(destination))


def _name(request: Request) -> str:
    try:
        return parse_destination(request.path_params["host"])
    except ValueError as error:
        raise Invalid([FieldError("{host}", str(error))]) from None


def _name_or_nothing(request: Request) -> str:
    """The name; what could not be one has neither load nor settings."""
    try:
        return _name(request)
    except Invalid as error:
        raise DestinationNotFound(str(error)) from None


def _facts(limits: Limits) -> dict[str, int | str | bool | None]:
    return {
        "concurrency": limits.concurrency,
        "rate": limits.rate_text,
        "paused": limits.paused,
    }


def _view(destination: Destination) -> DestinationView:
    hold, limits = destination.hold, destination.limits or Limits()
    stats = destination.stats
    return DestinationView(
        destination=destination.name,
        state=hold.reason if hold else "open",
        next_send=format_instant(hold.until) if hold and hold.until else None,
        in_flight=destination.in_flight,
        waiting=destination.waiting,
        connect_failures=destination.connect_failures,
        attempts=stats.attempts,
        success_rate=stats.success_rate,
        p50_ms=stats.percentile_ms(0.5),
        p99_ms=stats.percentile_ms(0.99),
        concurrency=destination.concurrency,
        rate=limits.rate_text,
        paused=limits.paused,
        default=destination.limits is None,
    )
