"""/health: does the service work; no request needs a token."""

import time
from datetime import timedelta
from typing import Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from scheduler_api import __version__
from scheduler_api.api.endpoint import context, endpoint
from scheduler_api.api.http import JSON
from scheduler_api.domain.duration import format_duration
from scheduler_api.domain.errors import DataRefused, StoreUnavailable, Unavailable

_STARTED: Final = time.monotonic()


class Health(msgspec.Struct):
    """How the service is."""

    status: Literal["healthy", "unhealthy"]
    redis: Literal["connected", "disconnected"]
    scheduler: Literal["running", "stopped"]
    scheduled_jobs: int
    uptime: str
    version: str
    warnings: list[str]  # of settings of the store that may lose messages, and a store nearly full


class Alive(msgspec.Struct):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Ready(msgspec.Struct):
    """The service can take messages."""

    status: Literal["ready"] = "ready"


@endpoint(None, {200: Health, 503: Health}, any_query=True)
async def health(request: Request) -> Response:
    """Tell whether the service works: the store answers and the scheduler runs."""
    ours = context(request)
    running = ours.is_running()
    warnings = [*ours.store.durability.warnings]
    try:
        count, connected = await ours.store.messages.count(), True
        warnings += await ours.store.fullness()
    except DataRefused:  # of a newer version: the scheduler stops with its next look at them
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
    """Tell whether the process answers."""
    return JSON(Alive())


@endpoint(None, {200: Ready}, errors=(Unavailable, StoreUnavailable), any_query=True)
async def ready(request: Request) -> Response:
    """Tell whether the service can take messages."""
    await context(request).store.messages.count()
    if not context(request).is_running():
        raise Unavailable(
            "The scheduler is stopping, has not started, or may not write to its store."
        )
    return JSON(Ready())
