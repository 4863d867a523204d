"""External stores with a configuration that the test chooses."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from redis import exceptions
from redis.asyncio import Redis

from scheduler_api.store.embedded.launch import find_binary
from tests.support.waiting import wait_until

DURABLE = ("appendonly yes", "appendfsync always")


@asynccontextmanager
async def server(folder: Path, *config: str, port: int = 0) -> AsyncIterator[str]:
    """Run one with these lines of configuration → the address of its unix socket."""
    os.makedirs(folder, exist_ok=True)
    lines = (f"port {port}", "bind 127.0.0.1", f"dir {folder}", "save ''", *config)
    text = "\n".join((f"unixsocket {folder}/s", *lines, ""))
    process = await asyncio.create_subprocess_exec(
        find_binary(), "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    try:
        assert process.stdin
        process.stdin.write(text.encode())
        process.stdin.close()
        await wait_until("a server that answers", lambda: answers(f"unix://{folder}/s"))
        yield f"unix://{folder}/s"
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def answers(address: str) -> bool:
    """Whether the server at this address runs commands."""
    return (await info(address)).get("loading") == 0


async def info(address: str) -> dict[str, Any]:
    """The server's INFO; empty while it does not answer."""
    redis = Redis.from_url(address)
    try:
        found: dict[str, Any] = await redis.info()
    except (exceptions.RedisError, OSError):
        return {}
    else:
        return found
    finally:
        await redis.aclose()
