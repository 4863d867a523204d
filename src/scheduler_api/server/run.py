"""One process: what compose.py puts together, under a server of ours or any ASGI server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, cast

import structlog
import uvicorn
from starlette.applications import Starlette

from scheduler_api.api.app import create_app
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.receiver import receiver
from scheduler_api.server import banner, open_files, token_file
from scheduler_api.server.compose import running
from scheduler_api.server.protocol import HttpProtocol
from scheduler_api.server.shutdown import Ending
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings, load
from scheduler_api.telemetry.logging import configure_logging, guard_streams

log = structlog.get_logger()

API_GRACE: Final = 5  # seconds that open requests to the API may take to end
IDLE_TIMEOUT: Final = 75  # seconds; longer than proxies keep theirs (60), which would send on a
# connection that is just being closed


def application(settings: Settings) -> Starlette:
    """The application with everything behind it in its lifespan, for any ASGI server."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        token = token_file.token(settings)
        if token.created:
            print(banner.banner(settings, token), flush=True)
        async with running(settings, token) as service:
            app.state.context = service.context
            yield

    return create_app(lifespan, foreign=True, root_path=settings.root_path)


def app() -> Starlette:
    """The application by the environment: what `uvicorn scheduler_api:app` serves."""
    guard_streams()
    settings = load()
    configure_log(settings)
    return application(settings)


def configure_log(settings: Settings) -> None:
    """Begin the log, with what is odd about the settings."""
    configure_logging(settings.log_level, settings.log_format)
    for name in settings.quoted_variables():
        reason = "the quotes are part of its value; docker --env-file keeps them: remove them there"
        log.warning("setting_quoted", setting=name, reason=reason)


def new_runner() -> asyncio.Runner:
    """On the event loop that uvicorn would choose."""
    return asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory())


async def run(
    settings: Settings,
    sock: socket.socket,
    ending: Ending,
    ready: Callable[[Token], None],
    listen: int | None = None,
) -> None:
    """Run until `ending`; `ready` is called with the callers' token once it takes traffic.

    Raises: SettingsError, StoreStartFailed, DataRefused; OSError if the port `listen` is taken.
    """
    starting = cast("asyncio.Task[None]", asyncio.current_task())
    with ending.by_signals():
        ending.means(starting.cancel)
        try:
            await _run(settings, sock, ending, ready, listen)
        except asyncio.CancelledError:
            if not ending.asked:
                raise
            starting.uncancel()


def _config(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.api_host,
        port=settings.api_port,
        workers=settings.workers,
        http=HttpProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        root_path=settings.root_path,
        timeout_keep_alive=IDLE_TIMEOUT,
        timeout_graceful_shutdown=API_GRACE,
        limit_concurrency=open_files.budget(settings.max_in_flight, open_files.limit()).callers,
        **more,
    )


async def _run(
    settings: Settings,
    sock: socket.socket,
    ending: Ending,
    ready: Callable[[Token], None],
    listen: int | None,
) -> None:
    api = create_app()
    async with AsyncExitStack() as stack:
        if listen is not None:
            secrets = settings.signing_secrets
            await stack.enter_async_context(receiver("127.0.0.1", listen, secrets))
        token = token_file.token(settings)
        service = await stack.enter_async_context(running(settings, token))
        api.state.context = service.context
        config = _config(settings, api, lifespan="off")
        server = _Server(config, service.dispatcher, lambda: ready(token))
        ending.means(server.stop, server.hurry)
        await server.serve([sock])


class _Server(uvicorn.Server):
    """Leaves the signals to `Ending`: uvicorn would raise them again before we have drained."""

    def __init__(
        self, config: uvicorn.Config, dispatcher: Dispatcher, ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._dispatcher = dispatcher
        self._ready = ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def stop(self) -> None:
        """Take no more connections, claim nothing more."""
        self.should_exit = True
        self._dispatcher.stop()

    def hurry(self) -> None:
        """Do not wait for open requests, in either direction."""
        self.force_exit = True
        self._dispatcher.hurry()
