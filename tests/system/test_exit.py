"""The service ends on a signal, even if a thread of it waits."""

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.system.processes import serving

# Runs serve; lookups of names that end with `.example` never end.
SILENT = (
    sys.executable,
    "-c",
    """
import socket, threading
from scheduler_api.cli.main import main

ask = socket.getaddrinfo

def getaddrinfo(host, *args, **more):
    if isinstance(host, bytes) and host.endswith(b".example"):
        threading.Event().wait()
    return ask(host, *args, **more)

socket.getaddrinfo = getaddrinfo
main(["serve"])
""",
)
SOON = 8.0  # seconds for a start or an end on a busy machine; a stuck lookup took 29


@pytest.mark.parametrize("signals", [1, 2])
async def test_exit_does_not_wait_for_a_lookup_that_never_ends(
    tmp_path: Path, signals: int
) -> None:
    async with serving(tmp_path, SILENT, SHUTDOWN_GRACE="1s" if signals == 1 else "30s") as server:
        await server.create(id="m", webhookUrl="http://silent.example/")
        await server.reach("m", "delivering")
        began = time.monotonic()
        for _ in range(signals - 1):
            server.send_signal(signal.SIGTERM)
            await server.event("shutdown_requested")
        assert await server.stop() == 0
        assert time.monotonic() - began < SOON
