"""The service as real processes: each in its own directory, and always ended."""

import asyncio
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from scheduler_api import settings
from tests.support.waiting import wait_until

TOKEN: Final = "token-of-the-system-tests"
SERVE: Final = (sys.executable, "-m", "scheduler_api", "serve")
PATIENCE: Final = 20.0  # seconds for a start or an end on a busy machine

Answer = tuple[int, dict[str, Any], dict[str, str]]  # status, body, headers


def free_port() -> int:
    """A loopback port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


def environment(**given: str) -> dict[str, str]:
    """The environment of this process without settings of the service and without a proxy."""
    names = {it.name for it in settings.describe()}
    own = {k: v for k, v in os.environ.items() if k.removesuffix("_FILE") not in names}
    return own | {"no_proxy": "*", "NO_PROXY": "*"} | given


def refused_start(folder: Path, store: str, **more: str) -> "subprocess.CompletedProcess[str]":
    """The end of a service over that store that should refuse to start."""
    given = {"REDIS_URL": store, "DATA_DIR": str(folder / "data"), "API_TOKEN": "t"}
    given |= {"API_HOST": "127.0.0.1", "API_PORT": str(free_port())} | more
    return subprocess.run(
        SERVE,
        cwd=folder,
        env=environment(**given),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


class Server:
    """One start of the service."""

    def __init__(self, folder: Path, port: int, process: "subprocess.Popen[bytes]") -> None:
        self.folder = folder
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.process = process

    def printed(self) -> list[str]:
        """The lines on stdout, of all starts in the directory."""
        return (self.folder / "stdout").read_text("utf-8").splitlines()

    def logged(self) -> list[str]:
        """The lines on stderr, of all starts in the directory."""
        return (self.folder / "stderr").read_text("utf-8").splitlines()

    def events(self, name: str) -> list[dict[str, Any]]:
        """The log events of that name."""
        lines = [line for line in self.logged() if f'"event":"{name}"' in line]
        return [json.loads(line) for line in lines]

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for an event of that name → the newest."""
        await wait_until(f"the event {name}", lambda: bool(self.events(name)), PATIENCE)
        return self.events(name)[-1]

    async def ask(
        self, method: str, path: str, body: Any = None, token: str = TOKEN, **more: Any
    ) -> Answer:
        """One API call; `body`: bytes are sent as they are, anything else as JSON."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(self.url, headers=headers) as session,
            session.request(method, path, data=data, **more) as answer,
        ):
            return answer.status, await answer.json(content_type=None), dict(answer.headers)

    async def create(self, **fields: Any) -> str:
        """Create a message that must be accepted → its id."""
        status, body, _ = await self.ask("POST", "/messages", fields)
        assert status == 201, body
        return str(body["messageId"])

    async def state(self, message_id: str) -> str:
        """The state of a message in the API."""
        _, body, _ = await self.ask("GET", f"/messages/{message_id}")
        return str(body.get("state"))

    async def reach(self, message_id: str, state: str, timeout: float = PATIENCE) -> None:
        """Wait until the message is in that state."""

        async def reached() -> bool:
            return await self.state(message_id) == state

        await wait_until(f"{message_id} {state}", reached, timeout)

    def send_signal(self, number: signal.Signals) -> None:
        """Signal the process; SIGINT goes to its process group, as Ctrl-C on a terminal."""
        if number is signal.SIGINT:
            os.killpg(self.process.pid, number)
        else:
            self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait until the process ends → exit code."""
        await wait_until("the end", lambda: self.process.poll() is not None, PATIENCE)
        return self.process.wait()

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait until the process ends → exit code."""
        self.send_signal(number)
        return await self.ended()

    async def ready(self) -> None:
        """Wait until it accepts requests; fail at once if it ended."""

        async def accepts_requests() -> bool:
            assert self.process.poll() is None, "\n".join(self.logged())
            try:
                return (await self.ask("GET", "/health/ready"))[0] == 200
            except aiohttp.ClientError:
                return False

        await wait_until("a server that accepts requests", accepts_requests, PATIENCE)


@asynccontextmanager
async def serving(
    folder: Path,
    command: tuple[str, ...] = SERVE,
    port: int | None = None,
    **environ: str,
) -> AsyncIterator[Server]:
    """The service with its embedded store in `folder`, ready; all of its processes are ended.

    It may send to loopback. A second start in the same directory has the data of the first one.
    """
    async with started(folder, command, port, **environ) as server:
        await server.ready()
        yield server


@asynccontextmanager
async def started(
    folder: Path,
    command: tuple[str, ...] = SERVE,
    port: int | None = None,
    **environ: str,
) -> AsyncIterator[Server]:
    """As `serving`, but it need not become ready."""
    async with started_into(None, folder, command, environ, port) as server:
        yield server


@asynccontextmanager
async def started_into(
    output: int | None,
    folder: Path,
    command: tuple[str, ...],
    environ: Mapping[str, str],
    port: int | None = None,
) -> AsyncIterator[Server]:
    """As `started`; `output`: a descriptor for stdout and stderr, instead of two files."""
    port = port or free_port()
    given = {"API_HOST": "127.0.0.1", "API_PORT": str(port), "API_TOKEN": TOKEN}
    given |= {"DATA_DIR": str(folder / "data"), "EGRESS_ALLOW": "127.0.0.1"} | dict(environ)
    with _started(command, folder, environment(**given), output) as process:
        yield Server(folder, port, process)
    await wait_until("the end of its store", lambda: not has_store(folder), PATIENCE)


@asynccontextmanager
async def serving_in_two(folder: Path, **environ: str) -> AsyncIterator[tuple[Server, Server]]:
    """Two replicas over an external store, each with its own directory, as on two machines."""
    folders = folder / "one", folder / "two"
    for each in folders:
        each.mkdir(exist_ok=True)
    one, two = (serving(each, SERVE, None, **environ) for each in folders)
    async with one as first, two as second:
        yield first, second


@contextmanager
def _started(
    command: tuple[str, ...], folder: Path, environ: dict[str, str], output: int | None
) -> Iterator["subprocess.Popen[bytes]"]:
    folder.mkdir(exist_ok=True)
    with (folder / "stdout").open("ab") as out, (folder / "stderr").open("ab") as err:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environ,
            stdout=out if output is None else output,
            stderr=err if output is None else output,
            start_new_session=True,
        )
    with process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with its workers


def has_store(folder: Path) -> bool:
    """Whether an embedded store of that directory runs: only it holds this lock."""
    return is_locked(folder / "data" / "store.lock")


def is_locked(path: Path) -> bool:
    """Whether another process holds a lock on that file."""
    if not path.exists():
        return False
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


async def parent_of(pid: int) -> int:
    """The parent of a process of this machine."""
    command = ("ps", "-o", "ppid=", "-p", str(pid))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return int(output)
