"""The command `serve`: binds the port, then runs one process, or the parent of several workers."""

import asyncio
import errno
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from multiprocessing.process import BaseProcess
from typing import Final

import msgspec

from scheduler_api.receiver import receiver
from scheduler_api.server import banner, token_file
from scheduler_api.server.address import LOOPBACK
from scheduler_api.server.run import new_runner, run
from scheduler_api.server.shutdown import Shutdown
from scheduler_api.server.startup_log import configure_log
from scheduler_api.server.supervisor import Workers
from scheduler_api.server.token_file import Token
from scheduler_api.server.worker import run_worker
from scheduler_api.settings import Settings, SettingsError

BIND_TIMEOUT: Final = 2.0  # seconds; workers of a killed parent may still hold the port
BIND_RETRY_DELAY: Final = 0.05  # seconds

_SPAWN: Final = multiprocessing.get_context("spawn")


def serve(settings: Settings, listen: int | None = None) -> None:
    """Run until a signal; `listen`: also run a try-out receiver on this port of loopback.

    Raises: SettingsError, SchedulerError if the service cannot start; OSError if a port is taken.
    """
    configure_log(settings)
    if listen is not None and settings.workers > 1:
        raise SettingsError("--listen works with one process only: leave WORKERS at 1")
    with _bound_socket(settings) as sock:
        bound = msgspec.structs.replace(settings, api_port=sock.getsockname()[1])
        if bound.workers > 1:
            asyncio.run(_serve_in_workers(bound, sock))
        else:
            with new_runner() as runner:
                runner.run(_serve_in_this_process(bound, sock, listen))


async def _serve_in_this_process(
    settings: Settings, sock: socket.socket, listen: int | None
) -> None:
    def print_banner(token: Token) -> None:
        print(banner.banner(settings, token, listen), flush=True)

    async with AsyncExitStack() as stack:
        if listen is not None:
            secrets = settings.signing_secrets
            await stack.enter_async_context(receiver(LOOPBACK, listen, secrets))
        await run(settings, sock, Shutdown(), print_banner)


async def _serve_in_workers(settings: Settings, sock: socket.socket) -> None:
    token = token_file.load_token(settings)  # here, and not in a worker: the banner shows a new one

    def start(parent: socket.socket) -> BaseProcess:
        process = _SPAWN.Process(target=run_worker, args=(settings, sock, parent), daemon=True)
        process.start()
        return process

    def print_banner() -> None:
        print(banner.banner(settings, token), flush=True)

    workers, shutdown = Workers(settings.workers, start, print_banner), Shutdown()
    shutdown.set_actions(workers.stop, workers.force_stop)
    with shutdown.on_signals():
        await workers.run()


@contextmanager
def _bound_socket(settings: Settings) -> Iterator[socket.socket]:
    """Bound before the banner is printed, so that the banner shows the real port."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    with socket.socket(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            _bind(sock, (settings.api_host, settings.api_port))
        except OSError as error:
            place = f"{settings.api_host}:{settings.api_port}"
            raise SettingsError(
                f"cannot listen on {place} ({error.strerror}): set API_HOST or API_PORT"
            ) from None
        yield sock


def _bind(sock: socket.socket, address: tuple[str, int]) -> None:
    deadline = time.monotonic() + BIND_TIMEOUT
    while True:
        try:
            sock.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(BIND_RETRY_DELAY)
        else:
            return
