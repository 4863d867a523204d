"""Embedded stores in tests: their processes, commands and events."""

import asyncio
import fcntl
import os
import subprocess
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from structlog.testing import LogCapture

from scheduler_api.store.embedded.launch import find_binary
from scheduler_api.store.embedded.supervisor import EmbeddedStore


class Open(Protocol):
    def __call__(self, folder: Path, **options: Any) -> EmbeddedStore: ...


class Members(Protocol):
    def __call__(self, folder: Path) -> "subprocess.Popen[str]": ...


async def next_line(process: "subprocess.Popen[str]") -> str:
    """The next line that a member prints."""
    assert process.stdout
    return (await asyncio.to_thread(process.stdout.readline)).strip()


async def call(socket: Path, *command: str) -> Any:
    client = Redis(unix_socket_path=str(socket), decode_responses=True, retry=Retry(NoBackoff(), 0))
    async with client:
        return await client.execute_command(*command)  # type: ignore[no-untyped-call]


async def replies(socket: Path) -> bool:
    try:
        return bool(await call(socket, "PING"))
    except (RedisError, OSError):
        return False


async def pid_of(socket: Path) -> int:
    return int((await call(socket, "INFO", "server"))["process_id"])


def servers(folder: Path) -> list[int]:
    """Process ids of the valkey-servers that run in the folder."""
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _serves(entry, folder)]


def _serves(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "exe").readlink().name == "valkey-server" and (
            entry / "cwd"
        ).readlink() == folder
    except OSError:
        return False


def event_names(log: LogCapture) -> list[str]:
    return [str(entry["event"]) for entry in log.entries]


def start_orphan(folder: Path) -> "subprocess.Popen[bytes]":
    """A store after its supervisor was killed: it holds store.lock, and nobody holds owner.lock."""
    descriptor = os.open(folder / "store.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    options = "--port 0 --appendonly yes --appendfsync always --save ''"
    process = subprocess.Popen(
        [find_binary(), *options.split(), "--unixsocket", folder / "store.sock", "--dir", folder],
        pass_fds=(descriptor,),
        stdout=subprocess.DEVNULL,
    )
    os.close(descriptor)
    return process


def remove(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()
