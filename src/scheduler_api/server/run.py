"""The service in one process: the application under uvicorn, from start to drained."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

import uvicorn

from scheduler_api.api.app import create_app
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.server import open_files, token_file
from scheduler_api.server.compose import open_service
from scheduler_api.server.protocol import HttpProtocol
from scheduler_api.server.shutdown import Shutdown
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings

API_GRACE: Final = 5  # seconds for open API requests to finish at shutdown
IDLE_TIMEOUT: Final = 75  # seconds until an idle API connection is closed; longer than that of
# proxies (60), which would otherwise send a request on a connection that is being closed


def new_runner() -> asyncio.Runner:
    """A runner with the event loop that uvicorn would choose."""
    return asyncio.Runner(loop_factory=uvicorn.Config("", log_config=None).get_loop_factory())


async def run(
    settings: Settings, sock: socket.socket, shutdown: Shutdown, ready: Callable[[Token], None]
) -> None:
    """Run until `shutdown`; `ready` is called with the API token when requests are accepted.

    Raises: SettingsError, StoreStartFailed, DataRefused.
    """
    starting = cast("asyncio.Task[None]", asyncio.current_task())
    with shutdown.on_signals():
        shutdown.set_actions(starting.cancel)
        try:
            await _run(settings, sock, shutdown, ready)
        except asyncio.CancelledError:
            if not shutdown.requested:
                raise
            starting.uncancel()


async def _run(
    settings: Settings, sock: socket.socket, shutdown: Shutdown, ready: Callable[[Token], None]
) -> None:
    api = create_app()
    token = token_file.load_token(settings)
    async with open_service(settings, token) as service:
        api.state.context = service.context
        config = _config(settings, api, lifespan="off")
        server = _Server(config, service.dispatcher, lambda: ready(token))
        shutdown.set_actions(server.stop, server.force_stop)
        await server.serve([sock])


def _config(settings: Settings, app: Any, **more: Any) -> uvicorn.Config:
    limits = open_files.connection_limits(settings.max_in_flight, open_files.raised_limit())
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
        limit_concurrency=limits.clients,
        **more,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, without its signal handlers: Shutdown handles the signals.

    uvicorn raises the signals again when it ends (its pull request 1600), before we have drained,
    and has no option against it (its pull request 402 was closed).
    """

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
        """Accept no more connections, claim no more messages."""
        self.should_exit = True
        self._dispatcher.stop()

    def force_stop(self) -> None:
        """Do not wait for open requests, neither of the API nor of deliveries."""
        self.force_exit = True
        self._dispatcher.hurry()
