"""Runs commands of the product, with and without a terminal."""

import asyncio
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.system.processes import environment

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Coroutine[Any, Any, Done]]


def shown_on_terminal(folder: Path, *arguments: str, **settings: str) -> tuple[int, str]:
    """As run_in, with stderr on a terminal → exit code, text on the terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "scheduler_api", *arguments],
        cwd=folder,
        env=environment(TERM="dumb", **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # EIO marks its end
            while chunk := terminal.read(4096):
                shown += chunk
    return process.returncode, shown.decode()


async def run_in(folder: Path, *arguments: str, stdin: bytes = b"", **settings: str) -> Done:
    """Run a command in `folder` with these settings and no others, until it ends."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scheduler_api", *arguments],
        cwd=folder,
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        check=False,
    )
