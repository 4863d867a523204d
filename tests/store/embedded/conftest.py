"""Fixtures of the embedded store."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from scheduler_api.store.embedded.supervisor import EmbeddedStore
from tests.support.embedded_store import Members, Open

MEMBER = """
import asyncio, signal, sys
from pathlib import Path
import structlog, uvloop
from scheduler_api.store.embedded.supervisor import EmbeddedStore

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))

async def main():
    store, ended, loop = EmbeddedStore(Path(sys.argv[1])), asyncio.Event(), asyncio.get_event_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    loop.add_signal_handler(signal.SIGINT, print, "interrupted")
    await store.start()
    print("owner" if store.owner else "member")
    await ended.wait()
    await store.stop()

uvloop.run(main())
"""


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


@pytest.fixture
async def open_store(log: LogCapture) -> AsyncIterator[Open]:
    stores: list[EmbeddedStore] = []

    def open_one(folder: Path, **options: Any) -> EmbeddedStore:
        logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
        stores.append(EmbeddedStore(folder, log=logger, **options))
        return stores[-1]

    yield open_one
    for store in stores:
        await store.stop()


@pytest.fixture
def member() -> Iterator[Members]:
    """Starts processes that run the supervisor on uvloop until SIGTERM."""
    processes: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-c", MEMBER, str(folder)]
        processes.append(
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stdin=None, text=True, start_new_session=True
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        process.terminate()
        process.communicate(timeout=20)
