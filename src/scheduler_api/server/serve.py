"""The command serve: binds the port, then runs one process, or the parent of several."""

import asyncio
import errno
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Final

import msgspec

from scheduler_api.server import banner, token_file
from scheduler_api.server.run import configure_log, new_runner, run
from scheduler_api.server.shutdown import Ending
from scheduler_api.server.supervisor import Workers
from scheduler_api.server.token_file import Token
from scheduler_api.server.worker import work
from scheduler_api.settings import Settings, SettingsError

BIND_PATIENCE: Final = 2.0  # seconds that the workers of a parent that was killed may hold the port
BIND_PAUSE: Final = 0.05  # seconds between two tries

_SPAWN: Final = multiprocessing.get_context("spawn")


def serve(settings: Settings, listen: int | None = None) -> None:
    """Run until a signal; `listen`: the port of a receiver to run beside it, on loopback.

    Raises: SettingsError, SchedulerError if the start is refused; OSError if a port is taken.
    """
    configure_log(settings)
    if listen is not None and settings.workers > 1:
        raise SettingsError("--listen is for a try-out in one process: leave WORKERS at 1")
    with _bound_socket(settings) as sock:
        here = msgspec.structs.replace(settings, api_port=sock.getsockname()[1])
        if here.workers > 1:
            asyncio.run(_serve_in_workers(here, sock))
        else:
            with new_runner() as runner:
                runner.run(_serve_in_this_process(here, sock, listen))


async def _serve_in_this_process(
    settings: Settings, sock: socket.socket, listen: int | None
) -> None:
    def notify(token: Token) -> None:
        print(banner.banner(settings, token, listen), flush=True)

    await run(settings, sock, Ending(), notify, listen)


async def _serve_in_workers(settings: Settings, sock: socket.socket) -> None:
    token = token_file.token(settings)  # made here, where it is printed, and not in a worker

    def start(parent: socket.socket) -> BaseProcess:
        process = _SPAWN.Process(target=work, args=(settings, sock, parent), daemon=True)
        process.start()
        return process

    def notify() -> None:
        print(banner.banner(settings, token), flush=True)

    workers, ending = Workers(settings.workers, start, notify), Ending()
    ending.means(workers.stop, workers.hurry)
    with ending.by_signals():
        await workers.run()


@contextmanager
def _bound_socket(settings: Settings) -> Iterator[socket.socket]:
    """Bound before anything is announced, so that what is printed is true."""
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


def _bind(sock: socket.socket, place: tuple[str, int]) -> None:
    deadline = time.monotonic() + BIND_PATIENCE
    while True:
        try:
            sock.bind(place)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(BIND_PAUSE)
        else:
            return
