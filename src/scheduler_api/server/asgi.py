"""The application for any ASGI server; its lifespan runs the store and the dispatcher."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette

from scheduler_api.api.app import create_app
from scheduler_api.server import banner, token_file
from scheduler_api.server.compose import open_service
from scheduler_api.server.startup_log import configure_log
from scheduler_api.settings import Settings, load
from scheduler_api.telemetry.logging import make_streams_nonblocking


def app() -> Starlette:
    """The application of `uvicorn scheduler_api:app`, with the settings of the environment."""
    make_streams_nonblocking()
    settings = load()
    configure_log(settings)
    return application(settings)


def application(settings: Settings) -> Starlette:
    """The application with these settings."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        token = token_file.load_token(settings)
        if token.created:
            print(banner.banner(settings, token), flush=True)
        async with open_service(settings, token) as service:
            app.state.context = service.context
            yield

    return create_app(lifespan, foreign=True, root_path=settings.root_path)
