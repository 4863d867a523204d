"""The service ends when it is told to, whatever its threads wait for."""

import signal
import sys
import time
from pathlib import Path

import pytest

from tests.system.processes import serving

# Serves where no name server answers for what ends with `.example`.
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
SOON = 8.0  # seconds: a start's or an end's on a busy machine; a stuck lookup took 29


@pytest.mark.parametrize("signals", [1, 2])
async def test_a_lookup_that_never_ends_does_not_delay_the_exit(
    tmp_path: Path, signals: int
) -> None:
    async with serving(tmp_path, SILENT, SHUTDOWN_GRACE="1s" if signals == 1 else "30s") as server:
        await server.create(id="m", webhookUrl="http://silent.example/")
        await server.reach("m", "delivering")
        began = time.monotonic()
        for _ in range(signals - 1):
            server.tell(signal.SIGTERM)
            await server.event("shutdown_requested")
        assert await server.stop() == 0
        assert time.monotonic() - began < SOON
