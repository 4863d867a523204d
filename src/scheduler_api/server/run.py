"""Running what compose.py puts together: under a server of ours, or under any ASGI server."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, Final

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from scheduler_api import descriptors, telemetry, token_file, welcome
from scheduler_api.api.app import create_app
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.listen import receiver
from scheduler_api.protocol import HttpProtocol
from scheduler_api.server.compose import running
from scheduler_api.settings import Settings, SettingsError, load

log = structlog.get_logger()

API_GRACE: Final = 5  # seconds that open requests to the API may take to end
IDLE_TIMEOUT: Final = 75  # seconds; longer than proxies keep theirs (60), which would send on a
# connection that is just being closed


def application(settings: Settings, *, foreign: bool = False) -> Starlette:
    """The application with everything behind it in its lifespan.

    `foreign`: for any ASGI server, not for our protocol.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        token = token_file.token(settings)
        if token.created:
            print(welcome.banner(settings, token), flush=True)
        async with running(settings, token) as service:
            app.state.context = service.context
            yield

    return create_app(lifespan, foreign=foreign)


def app() -> Starlette:
    """The application by the environment: what `uvicorn scheduler_api:app` serves."""
    telemetry.guard_streams()
    settings = load()
    telemetry.configure(settings.log_level, settings.log_format)
    return application(settings, foreign=True)


def worker(settings: Settings) -> Starlette:
    """The application in one of several processes."""
    telemetry.guard_streams()
    telemetry.configure(settings.log_level, settings.log_format)
    return application(settings)


def serve(settings: Settings, listen: int | None = None) -> None:
    """Run until a signal; `listen`: the port of a receiver to run beside it, on loopback.

    Raises: SettingsError, StoreStartFailed, DataRefused; OSError if a port is taken.
    """
    telemetry.configure(settings.log_level, settings.log_format)
    if listen is not None and settings.workers > 1:
        raise SettingsError("--listen is for a try-out in one process: leave WORKERS at 1")
    with _bound_socket(settings) as sock:
        here = msgspec.structs.replace(settings, api_port=sock.getsockname()[1])
        if here.workers > 1:
            _serve_in_workers(here, sock)
        else:
            _serve_in_this_process(here, sock, listen)


def _serve_in_workers(settings: Settings, sock: socket.socket) -> None:
    config = _config(settings, partial(worker, settings), factory=True, lifespan="on")
    print(welcome.banner(settings, token_file.token(settings)), flush=True)
    Multiprocess(config, [sock]).run()


def _serve_in_this_process(settings: Settings, sock: socket.socket, listen: int | None) -> None:
    api = create_app()
    config = _config(settings, api, lifespan="off")
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(settings, api, config, sock, listen))


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
        limit_concurrency=descriptors.budget(settings.max_in_flight, descriptors.limit()).callers,
        **more,
    )


async def _serve(
    settings: Settings,
    api: Starlette,
    config: uvicorn.Config,
    sock: socket.socket,
    listen: int | None,
) -> None:
    async with AsyncExitStack() as stack:
        if listen is not None:
            secrets = settings.signing_secrets
            await stack.enter_async_context(receiver("127.0.0.1", listen, secrets))
        token = token_file.token(settings)
        service = await stack.enter_async_context(running(settings, token))
        api.state.context = service.context
        print(welcome.banner(settings, token, listen), flush=True)
        await _Server(config, service.dispatcher).serve([sock])


@contextmanager
def _bound_socket(settings: Settings) -> Iterator[socket.socket]:
    """Bound before anything is announced, so that what is printed is true."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((settings.api_host, settings.api_port))
        except OSError as error:
            place = f"{settings.api_host}:{settings.api_port}"
            raise SettingsError(
                f"cannot listen on {place} ({error.strerror}): set API_HOST or API_PORT"
            ) from None
        yield sock


class _Server(uvicorn.Server):
    """Leaves the signals' end to us: uvicorn would raise them again before we have drained."""

    def __init__(self, config: uvicorn.Config, dispatcher: Dispatcher) -> None:
        super().__init__(config)
        self._dispatcher = dispatcher

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled, number)
        yield  # the handlers stay: a second signal may come while we drain

    def _signalled(self, number: int) -> None:
        at_once = self.should_exit
        self.should_exit = True
        self._dispatcher.stop()
        if at_once:
            self.force_exit = True
            self._dispatcher.hurry()
        log.info("stopping", signal=signal.Signals(number).name, at_once=at_once)
