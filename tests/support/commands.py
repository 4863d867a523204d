"""Commands of the product, run as a person runs them."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests.system.processes import environment

Done = subprocess.CompletedProcess[bytes]
Run = Callable[..., Coroutine[Any, Any, Done]]


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
