"""/destinations: list, show, set limits, delete limits."""

from typing import Annotated, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api.api.body_reader import read_body
from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.fields import (
    EXAMPLE_CURSOR,
    EXAMPLE_INSTANT,
    PAGE_FIELDS,
    Instant,
    PageQuery,
    described,
)
from scheduler_api.api.http import JSON, decode, query
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
from scheduler_api.telemetry import transitions

_NEW_LIMITS: Final = msgspec.json.Decoder(NewLimits)
_NEW_LIMITS_FIELDS: Final = NewLimits.__struct_encode_fields__


class DestinationView(msgspec.Struct, rename="camel"):
    """A destination: its limits, its load and the result of its last attempts."""

    destination: Annotated[
        str,
        described("Host, or `host:port` for a port other than 80 and 443.", "n8n.example:5678"),
    ]
    state: Annotated[
        Literal["open", "paused", "full", "rate", "unreachable"],
        described(
            "Whether messages are sent to it: `open`: yes. `full`: as many requests are open as "
            "`concurrency` allows. `rate`: the rate allows the next message at `nextSend`. "
            "`paused`: not until it is resumed. `unreachable`: it could not be connected to five "
            "times in a row; `nextSend` is the time of the next probe."
        ),
    ]
    next_send: Annotated[
        Instant | None,
        described(
            "When the rate or the next probe allows a message; null if one may be sent now or if "
            "no time is known.",
            EXAMPLE_INSTANT,
        ),
    ]
    in_flight: Annotated[int, described("Open requests.", 3)]
    waiting: Annotated[int, described("Due messages that are held back.", 12)]
    connect_failures: Annotated[int, described("Failed connections in a row.", 0)]
    attempts: Annotated[int, described("Attempts in this hour (UTC) and the hour before.", 420)]
    success_rate: Annotated[
        float | None,
        described("Share of these attempts with a 2xx response, 0–1; null without attempts.", 0.98),
    ]
    p50_ms: Annotated[
        int | None,
        described("Median duration of these attempts in milliseconds, within 12 %.", 140),
    ]
    p99_ms: Annotated[
        int | None,
        described("99th percentile of their duration in milliseconds, within 12 %.", 2_300),
    ]
    concurrency: Annotated[
        int,
        described("Maximum number of open requests: its own, or `DESTINATION_CONCURRENCY`.", 8),
    ]
    rate: Annotated[str | None, described("Maximum rate; null if there is no limit.", "300/m")]
    paused: Annotated[bool, described("Whether sending is paused.", False)]
    default: Annotated[
        bool, described("Whether the default limits apply, because none are set.", False)
    ]


class DestinationList(msgspec.Struct, rename="camel"):
    """A page of destinations, those with the most load first."""

    destinations: Annotated[list[DestinationView], described("The destinations on this page.")]
    count: Annotated[int, described("Number of destinations on this page.", 1)]
    total: Annotated[
        int | None,
        described("Number of all destinations if they fit on one page, else null.", 1),
    ]
    next_cursor: Annotated[
        str | None, described("`cursor` of the next page; null on the last page.", EXAMPLE_CURSOR)
    ]


@endpoint("read", {200: DestinationList}, query=PageQuery, errors=(Invalid,))
async def list_(request: Request) -> Response:
    """List destinations that have load or limits.

    Destinations with load and without limits come first, then those with limits. On each page,
    the ones with the most load come first. A page can have fewer than `limit` destinations although
    another page follows. A destination with limits appears once. One without limits whose load
    changes while you read the pages can be missing or appear twice.
    """
    asked = query(request, PageQuery, PAGE_FIELDS)
    page = await context(request).store.destinations.list(asked.limit, asked.cursor or None)
    views = [_view(destination) for destination in page.rows]
    return JSON(DestinationList(views, len(views), page.total, page.cursor))


@endpoint("read", {200: DestinationView}, errors=(DestinationNotFound,))
async def get(request: Request) -> Response:
    """Show a destination."""
    name = _known_name(request)
    return JSON(_view(await context(request).store.destinations.get(name)))


@endpoint(
    "admin",
    {200: DestinationView},
    body=NewLimits,
    example={"concurrency": 8, "rate": "300/m", "paused": False},
    errors=(Malformed, PayloadTooLarge, Invalid),
)
async def put(request: Request) -> Response:
    """Set the limits of a destination, or pause it.

    Replaces all its limits: a field that you leave out gets its default.
    """
    ours = context(request)
    name = _name(request)
    body = await read_body(request, ours.max_body, ours.bodies)
    limits = accept_limits(decode(body, _NEW_LIMITS, _NEW_LIMITS_FIELDS))
    destination = await ours.store.destinations.set_limit(name, limits)
    transitions.destination_limits_set(
        name, limits.concurrency, limits.rate_text, paused=limits.paused
    )
    return JSON(_view(destination))


@endpoint("admin", {200: DestinationView}, errors=(DestinationNotFound,))
async def delete(request: Request) -> Response:
    """Delete the limits of a destination: the defaults apply again."""
    name = _known_name(request)
    destination = await context(request).store.destinations.set_limit(name, None)
    transitions.destination_limits_cleared(name)
    return JSON(_view(destination))


def _name(request: Request) -> str:
    """The destination's name, from any spelling of its host. Raises: Invalid."""
    try:
        return parse_destination(request.path_params["host"])
    except ValueError as error:
        raise Invalid([FieldError("{host}", str(error))]) from None


def _known_name(request: Request) -> str:
    """The name. Raises: DestinationNotFound for one that no destination can have."""
    try:
        return _name(request)
    except Invalid as error:
        raise DestinationNotFound(str(error)) from None


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
