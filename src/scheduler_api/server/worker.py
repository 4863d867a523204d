"""A worker process: runs the service, follows its parent, and sends it heartbeats."""

import asyncio
import socket
import sys
from typing import Final

import structlog

from scheduler_api.domain.errors import SchedulerError, text_with_cause
from scheduler_api.server import worker_channel
from scheduler_api.server.run import new_runner, run
from scheduler_api.server.shutdown import Shutdown
from scheduler_api.server.worker_channel import Channel
from scheduler_api.settings import Settings, SettingsError
from scheduler_api.telemetry.logging import configure_logging, make_streams_nonblocking

log = structlog.get_logger()

HEARTBEAT_INTERVAL: Final = 5.0  # seconds


def run_worker(settings: Settings, sock: socket.socket, parent: socket.socket) -> None:
    """Run until a stop is requested or the parent is gone, then exit the process."""
    make_streams_nonblocking()
    configure_logging(settings.log_level, settings.log_format)
    with new_runner() as runner:
        sys.exit(runner.run(_run(settings, sock, parent)))


async def _run(settings: Settings, sock: socket.socket, parent: socket.socket) -> int:
    """Run the service → exit code."""
    to_parent = await Channel.over(parent)
    shutdown = Shutdown()
    tasks = [
        asyncio.create_task(_follow(to_parent, shutdown)),
        asyncio.create_task(_send_heartbeats(to_parent)),
    ]
    try:
        await run(settings, sock, shutdown, lambda _: to_parent.send(worker_channel.READY))
    except SettingsError as error:
        to_parent.send(worker_channel.WRONG_SETTINGS, str(error))
        return 1
    except (SchedulerError, OSError) as error:
        to_parent.send(worker_channel.START_REFUSED, text_with_cause(error))
        return 1
    else:
        return 0
    finally:
        for task in tasks:
            task.cancel()
        to_parent.close()


async def _follow(parent: Channel, shutdown: Shutdown) -> None:
    """Stop when the parent requests it, or has ended."""
    actions = {
        worker_channel.STOP: shutdown.stop,
        worker_channel.FORCE_STOP: shutdown.force_stop,
    }
    async for (word,) in parent.messages():
        actions[word]()
    shutdown.stop()
    log.warning("parent_lost")


async def _send_heartbeats(parent: Channel) -> None:
    while True:
        parent.send(worker_channel.HEARTBEAT)
        await asyncio.sleep(HEARTBEAT_INTERVAL)
