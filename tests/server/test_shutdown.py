"""How a process is asked to end: by signals, by its parent, once and twice."""

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


class Asked:
    """What an ending was told to do."""

    def __init__(self) -> None:
        self.acts: list[str] = []
        self.shutdown = Shutdown()

    def tell(self) -> None:
        self.shutdown.set_actions(
            lambda: self.acts.append("stop"), lambda: self.acts.append("force_stop")
        )


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def signalled(number: signal.Signals) -> None:
    """Raise it, and let the loop see it."""
    seen = asyncio.Event()
    os.kill(os.getpid(), number)
    asyncio.get_running_loop().call_later(0.05, seen.set)
    await seen.wait()


def test_a_request_that_is_repeated_stops_once(asked: Asked) -> None:
    asked.tell()
    asked.shutdown.stop()
    asked.shutdown.stop()
    assert asked.acts == ["stop"]


def test_a_request_before_anybody_is_in_charge_counts(asked: Asked) -> None:
    asked.shutdown.stop()
    asked.tell()
    assert asked.acts == ["stop"]


def test_a_hurry_stops_too(asked: Asked) -> None:
    asked.tell()
    asked.shutdown.force_stop()
    assert asked.acts == ["stop", "force_stop"]


@pytest.mark.parametrize("first", ["parent", "signal"])
async def test_a_signal_to_all_of_a_group_and_the_word_of_the_parent_are_one_request(
    asked: Asked, first: str
) -> None:
    asked.tell()
    with asked.shutdown.on_signals():
        if first == "parent":
            asked.shutdown.stop()
            await signalled(signal.SIGTERM)
        else:
            await signalled(signal.SIGTERM)
            asked.shutdown.stop()
        assert asked.acts == ["stop"]
        await signalled(signal.SIGINT)
        assert asked.acts == ["stop", "force_stop"]
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


async def test_without_a_request_the_signals_do_afterwards_what_they_do_by_default(
    asked: Asked,
) -> None:
    with asked.shutdown.on_signals():
        pass
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_end_ends_a_process_that_waits_for_a_thread(
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
