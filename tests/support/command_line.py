"""Commands of the product, run as a person runs them."""

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
    """As run_in, with a terminal for what is told of the progress → exit code, what it shows."""
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
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # EIO is its end
            while chunk := terminal.read(4096):
                shown += chunk
    return process.returncode, shown.decode()


async def run_in(folder: Path, *arguments: str, stdin: bytes = b"", **settings: str) -> Done:
    """A command in `folder`, with these settings and no others, to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "scheduler_api", *arguments],
        cwd=folder,
        env=environment(**settings),
        input=stdin,
        capture_output=True,
        check=False,
    )
