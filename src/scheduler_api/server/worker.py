"""One of several worker processes: the service, and its end of the channel to the parent."""

import asyncio
import socket
import sys
from typing import Final

import structlog

from scheduler_api.domain.errors import SchedulerError
from scheduler_api.server import worker_channel
from scheduler_api.server.run import new_runner, run
from scheduler_api.server.shutdown import Ending
from scheduler_api.server.worker_channel import Channel
from scheduler_api.settings import Settings, SettingsError
from scheduler_api.telemetry.logging import configure_logging, guard_streams

log = structlog.get_logger()

ALIVE_EVERY: Final = 5.0  # seconds; a wake-up each, which costs nothing beside one message


def work(settings: Settings, sock: socket.socket, parent: socket.socket) -> None:
    """Run until asked to end, or until the parent is gone. Ends the process."""
    guard_streams()
    configure_logging(settings.log_level, settings.log_format)
    with new_runner() as runner:
        sys.exit(runner.run(_work(settings, sock, parent)))


async def _work(settings: Settings, sock: socket.socket, parent: socket.socket) -> int:
    to_parent = await Channel.over(parent)
    ending = Ending()
    beside = [
        asyncio.create_task(_obey(to_parent, ending)),
        asyncio.create_task(_show_life(to_parent)),
    ]
    try:
        await run(settings, sock, ending, lambda _: to_parent.say(worker_channel.READY))
    except SettingsError as error:
        to_parent.say(worker_channel.WRONG_SETTINGS, str(error))
        return 1
    except (SchedulerError, OSError) as error:
        to_parent.say(worker_channel.REFUSED, str(error))
        return 1
    else:
        return 0
    finally:
        for task in beside:
            task.cancel()
        to_parent.close()


async def _obey(parent: Channel, ending: Ending) -> None:
    acts = {worker_channel.STOP: ending.stop, worker_channel.HURRY: ending.hurry}
    async for (word,) in parent.heard():
        acts[word]()
    ending.stop()
    log.warning("parent_lost")


async def _show_life(parent: Channel) -> None:
    while True:
        parent.say(worker_channel.ALIVE)
        await asyncio.sleep(ALIVE_EVERY)
