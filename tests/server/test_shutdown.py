"""Shutdown requests: by signals and by calls, once and twice."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest

from scheduler_api.server.shutdown import Shutdown

WAITS_FOR_A_THREAD = """
import asyncio, os, signal, threading
from scheduler_api.server.shutdown import Shutdown

async def main():
    shutdown, ended = Shutdown(), asyncio.Event()
    shutdown.set_actions(ended.set)
    with shutdown.on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        await ended.wait()

asyncio.run(main())
threading.Thread(target=threading.Event().wait).start()
print("waiting", flush=True)
"""


class Recorded:
    """A Shutdown, and the actions that it has run."""

    def __init__(self) -> None:
        self.actions: list[str] = []
        self.shutdown = Shutdown()

    def set_actions(self) -> None:
        self.shutdown.set_actions(
            lambda: self.actions.append("stop"), lambda: self.actions.append("force_stop")
        )


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


async def signalled(number: signal.Signals) -> None:
    """Send the signal to this process, and let the loop handle it."""
    seen = asyncio.Event()
    os.kill(os.getpid(), number)
    asyncio.get_running_loop().call_later(0.05, seen.set)
    await seen.wait()


def test_stop_twice_stops_once(recorded: Recorded) -> None:
    recorded.set_actions()
    recorded.shutdown.stop()
    recorded.shutdown.stop()
    assert recorded.actions == ["stop"]


def test_set_actions_after_a_request_stops_at_once(recorded: Recorded) -> None:
    recorded.shutdown.stop()
    recorded.set_actions()
    assert recorded.actions == ["stop"]


def test_force_stop_also_stops(recorded: Recorded) -> None:
    recorded.set_actions()
    recorded.shutdown.force_stop()
    assert recorded.actions == ["stop", "force_stop"]


@pytest.mark.parametrize("first", ["parent", "signal"])
async def test_stop_and_the_first_signal_count_as_one_request(
    recorded: Recorded, first: str
) -> None:
    recorded.set_actions()
    with recorded.shutdown.on_signals():
        if first == "parent":
            recorded.shutdown.stop()
            await signalled(signal.SIGTERM)
        else:
            await signalled(signal.SIGTERM)
            recorded.shutdown.stop()
        assert recorded.actions == ["stop"]
        await signalled(signal.SIGINT)
        assert recorded.actions == ["stop", "force_stop"]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def test_on_signals_restores_the_default_handlers_without_a_request(
    recorded: Recorded,
) -> None:
    with recorded.shutdown.on_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_after_the_shutdown_ends_a_process_that_waits_for_a_thread(
    number: signal.Signals,
) -> None:
    command = [sys.executable, "-c", WAITS_FOR_A_THREAD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            while process.stdout.readline() != "waiting\n":
                pass
            process.send_signal(number)
            assert process.wait(10) == 0
        finally:
            process.kill()
