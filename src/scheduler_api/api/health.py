"""/health, /health/live, /health/ready: whether the service works, without a token."""

import time
from datetime import timedelta
from typing import Annotated, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api import __version__
from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.fields import described
from scheduler_api.api.http import JSON
from scheduler_api.domain.duration import format_duration
from scheduler_api.domain.errors import DataRefused, StoreUnavailable, Unavailable

_STARTED: Final = time.monotonic()


class Health(msgspec.Struct):
    """The state of the service and its store."""

    status: Annotated[
        Literal["healthy", "unhealthy"],
        described("`healthy` if the store is connected and the scheduler runs."),
    ]
    redis: Annotated[Literal["connected", "disconnected"], described("Whether the store answers.")]
    scheduler: Annotated[Literal["running", "stopped"], described("Whether due messages are sent.")]
    scheduled_jobs: Annotated[
        int, described("Pending messages; 0 if the store does not answer.", 5)
    ]
    uptime: Annotated[str, described("Time since the start of this process.", "2h 34m 12s")]
    version: Annotated[str, described("Version of the service.", __version__)]
    warnings: Annotated[
        list[str],
        described(
            "Settings of the store that can lose messages, and a store that is nearly full.",
            [],
            ["appendfsync is everysec: a crash may lose the last messages; set it to always"],
        ),
    ]


class Alive(msgspec.Struct):
    """The process answers."""

    status: Annotated[Literal["alive"], described("Always `alive`.")] = "alive"


class Ready(msgspec.Struct):
    """The service can store and send messages."""

    status: Annotated[Literal["ready"], described("Always `ready`.")] = "ready"


@endpoint(None, {200: Health, 503: Health}, any_query=True)
async def show(request: Request) -> Response:
    """Show whether the service works: the store answers and the scheduler runs.

    Answers 503 if it does not. Query parameters are ignored.
    """
    ours = context(request)
    running = ours.is_running()
    warnings = [*ours.store.durability.warnings]
    try:
        count, connected = await ours.store.messages.count(), True
        warnings += await ours.store.fullness()
    except DataRefused:  # of a newer version: the scheduler stops when it next reads them
        count, connected, running = 0, True, False
    except Unavailable:
        count, connected = 0, False
    healthy = connected and running
    body = Health(
        status="healthy" if healthy else "unhealthy",
        redis="connected" if connected else "disconnected",
        scheduler="running" if running else "stopped",
        scheduled_jobs=count,
        uptime=format_duration(timedelta(seconds=int(time.monotonic() - _STARTED))),
        version=__version__,
        warnings=warnings,
    )
    return JSON(body, 200 if healthy else 503, None if healthy else {"Retry-After": "1"})


@endpoint(None, {200: Alive}, any_query=True)
async def live(_: Request) -> Response:
    """Show that the process answers."""
    return JSON(Alive())


@endpoint(None, {200: Ready}, errors=(Unavailable, StoreUnavailable), any_query=True)
async def ready(request: Request) -> Response:
    """Show whether the service can store and send messages.

    Answers 503 while the store or the scheduler does not work.
    """
    await context(request).store.messages.count()
    if not context(request).is_running():
        raise Unavailable(
            "The scheduler has not started, is stopping, or may not write to its store."
        )
    return JSON(Ready())
