"""The composition root: settings → store, dispatcher, api → run, drain, stop."""

import asyncio
import gc
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import lru_cache, partial
from typing import Any, Final

import msgspec
import structlog
import uvicorn
from starlette.applications import Starlette
from uvicorn.supervisors import Multiprocess

from scheduler_api import descriptors, telemetry, token_file, welcome
from scheduler_api.api.app import create_app
from scheduler_api.api.auth import BearerToken
from scheduler_api.api.endpoint import Context
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.sender import Sender
from scheduler_api.delivery.takeover import taking_over
from scheduler_api.delivery.transport import open_transport
from scheduler_api.domain.errors import StoreNotDurable, StoreUnavailable
from scheduler_api.listen import receiver
from scheduler_api.settings import Settings, SettingsError, load
from scheduler_api.store.processes import Processes
from scheduler_api.store.store import Store, redis_at
from scheduler_api.token_file import Token
from scheduler_api.wire import WholeAnswers

log = structlog.get_logger()

COLLECT_AFTER: Final = 20_000  # new objects until the garbage collector looks; Python's own: 700
API_GRACE: Final = 5  # seconds that open requests to the API may take to end


class Service(msgspec.Struct, frozen=True):
    """What runs: the api's context, and the dispatcher."""

    context: Context
    dispatcher: Dispatcher


@asynccontextmanager
async def running(settings: Settings, token: Token) -> AsyncIterator[Service]:
    """Store and dispatcher, from open to drained. Raises: StoreStartFailed, DataRefused."""
    grace = settings.shutdown_grace
    async with (
        redis_at(settings.redis_address, settings.data_dir, grace) as redis,
        open_transport(settings.egress_allow) as transport,
    ):
        store = Store(
            redis,
            prefix=settings.redis_prefix,
            partitions=settings.partitions,
            lease=settings.lease,
            concurrency=settings.destination_concurrency,
            keep_delivered=settings.keep_delivered,
            keep_failed=settings.keep_failed,
            replica=settings.durability == "replica",
        )
        await _check(store, strict=settings.strict)
        sender = Sender(
            transport,
            timeout=settings.request_timeout,
            secrets=settings.signing_secrets,
        )
        dispatcher = Dispatcher(
            store.queues,
            store.heads,
            sender,
            store.check,
            slots=_slots(settings.max_in_flight),
            lease=settings.lease,
        )
        context = Context(
            store=store,
            token=BearerToken(token.value),
            # Most messages go to few hosts.
            refusal=lru_cache(4096)(settings.egress_allow.refusal_of_literal),
            default_zone=settings.default_timezone,
            max_body=settings.max_body,
            is_running=lambda: dispatcher.running,
        )
        async with taking_over(Processes(settings.data_dir, store.epoch), store.queues):
            dispatcher.start()
            _collect_seldom()
            try:
                yield Service(context, dispatcher)
            finally:
                await dispatcher.drain(grace)
                log.info("drained")


def _slots(wanted: int) -> int:
    limit = descriptors.limit()
    slots = descriptors.budget(wanted, limit).deliveries
    if slots < wanted:
        log.warning("few_descriptors", limit=limit, max_in_flight=slots)
    return slots


def _collect_seldom() -> None:
    """Let the garbage collector pass over what was loaded, and look seldom.

    A burst makes thousands of objects that reference counting frees; by default the collector
    walks through them, and all modules with them, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


async def _check(store: Store, *, strict: bool) -> None:
    """Refuse data not for this process; a store that is away is waited for by the dispatcher.

    With `strict`, refuse a store that may lose messages, or that cannot be asked.
    """
    try:
        await store.check_all()
    except StoreUnavailable as error:
        if strict:
            raise
        log.warning("store_away_at_start", reason=str(error), cause=repr(error.__cause__))
    if strict and store.durability.warnings:
        raise StoreNotDurable("STRICT is set, and " + "; ".join(store.durability.warnings))


def application(settings: Settings) -> Starlette:
    """The application with everything behind it in its lifespan, for any ASGI server."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        token = token_file.token(settings)
        if token.created:
            print(welcome.banner(settings, token), flush=True)
        async with running(settings, token) as service:
            app.state.context = service.context
            yield

    return create_app(lifespan)


def app() -> Starlette:
    """The application by the environment: what `uvicorn scheduler_api:app` serves."""
    settings = load()
    telemetry.configure(settings.log_level, settings.log_format)
    return application(settings)


def worker(settings: Settings) -> Starlette:
    """The application in one of several processes."""
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
        http=WholeAnswers,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
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
        log.info("stopping", signal=signal.Signals(number).name, at_once=self.should_exit)
        if self.should_exit:
            self.force_exit = True
            self._dispatcher.hurry()
        self.should_exit = True
        self._dispatcher.stop()
