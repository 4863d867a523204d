"""Commands whose stdout or stderr cannot be written: one line of error, the exit code."""

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from scheduler_api.store.store import Store
from tests.cli.commands import server
from tests.conftest import PARTITIONS
from tests.support import stderr_streams
from tests.support.factories import accepted
from tests.support.waiting import wait_until
from tests.system.processes import environment, free_port

COMMAND = (sys.executable, "-m", "scheduler_api")
FULL = b"Error: cannot write to stdout (No space left on device)\n"
MANY = 100  # messages
PAYLOAD = "x" * 30_000  # so that all are larger than a buffer, and than FILE_LIMIT
FILE_LIMIT = 1024**2  # bytes; large enough for the file that coverage writes


async def run(
    folder: Path, *arguments: str, output: str = "", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command; `output`: the shell's redirection of its output."""
    return await asyncio.to_thread(
        subprocess.run,
        ("sh", "-c", f'exec "$@" {output}', "-", *COMMAND, *arguments),
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def external_store(valkey: str, prefix: str) -> dict[str, str]:
    """Settings of the store of this test."""
    return {"REDIS_URL": valkey, "REDIS_PREFIX": prefix, "PARTITIONS": str(PARTITIONS)}


@pytest.fixture
async def messages(live_store: Store) -> int:
    """Create pending messages in that store → how many."""
    await live_store.check_all()
    creates = (
        live_store.messages.create(f"m{number}", accepted(payload=PAYLOAD))
        for number in range(MANY)
    )
    await asyncio.gather(*creates)
    return MANY


@pytest.mark.parametrize("command", ["--help", "fsck --json"])
async def test_command_with_an_unwritable_stdout_prints_one_line_and_exits_1(
    command: str, tmp_path: Path, external_store: dict[str, str], live_store: Store
) -> None:
    await live_store.check_all()
    done = await run(tmp_path, *command.split(), output="> /dev/full", **external_store)
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize(("command", "stderr"), [("version", "2>&-"), ("fsck", "2> /dev/full")])
async def test_command_with_an_unwritable_stderr_succeeds(
    command: str, stderr: str, tmp_path: Path, external_store: dict[str, str], live_store: Store
) -> None:
    await live_store.check_all()
    done = await run(tmp_path, command, output=stderr, **external_store)
    assert done.returncode == 0
    assert done.stdout


@pytest.mark.parametrize(
    ("output", "error"),
    [
        ("> /dev/full", FULL),
        ("> /dev/full 2> /dev/full", b""),
        (">&-", b"Error: stdout is closed: give a FILE\n"),
    ],
)
async def test_export_to_an_unwritable_stdout_prints_one_line_and_exits_1(
    output: str, error: bytes, tmp_path: Path, external_store: dict[str, str], messages: int
) -> None:
    assert messages
    done = await run(tmp_path, "export", "-", output=output, **external_store)
    assert (done.returncode, done.stderr) == (1, error)


async def test_export_to_a_closed_pipe_prints_one_line_and_exits_1(
    tmp_path: Path, external_store: dict[str, str], messages: int
) -> None:
    assert messages
    with stderr_streams.opened("pipe without its reader", tmp_path) as pipe:
        done = await asyncio.to_thread(
            subprocess.run,
            (*COMMAND, "export", "-"),
            cwd=tmp_path,
            env=environment(**external_store),
            stdout=pipe.descriptor,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"Error: cannot write to stdout (Broken pipe)\n"


async def test_export_to_a_full_disk_can_be_resumed(
    tmp_path: Path, external_store: dict[str, str], messages: int
) -> None:
    limited = ("prlimit", f"--fsize={FILE_LIMIT}", *COMMAND, "export", "all")
    done = await asyncio.to_thread(
        subprocess.run,
        limited,
        cwd=tmp_path,
        env=environment(**external_store),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    error = b"cannot write all.part (File too large): fix this, then continue with --resume\n"
    assert done.stderr == b"Error: " + error
    resumed = await run(tmp_path, "export", "all", "--resume", **external_store)
    assert resumed.returncode == 0, resumed.stderr
    lines = (tmp_path / "all").read_bytes().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {f"m{n}" for n in range(messages)}


async def test_healthcheck_with_unwritable_streams_still_sets_its_exit_code(tmp_path: Path) -> None:
    with server(200) as port:
        output = "> /dev/full 2> /dev/full"
        done = await run(tmp_path, "healthcheck", output=output, API_PORT=str(port))
    assert done.returncode == 0


async def test_listen_with_an_unwritable_stdout_still_accepts_webhooks(
    tmp_path: Path,
) -> None:
    port = free_port()
    command = (*COMMAND, "listen", "--port", str(port))
    with stderr_streams.opened("full device", tmp_path) as full:
        listening = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environment(), stdout=full.descriptor
        )

    async def has_responded() -> bool:
        url = f"http://127.0.0.1:{port}/hello"
        with suppress(aiohttp.ClientConnectorError):
            async with aiohttp.request("POST", url, data=b"hi") as response:
                assert response.status == 200
                return True
        return False

    try:
        await wait_until("a response", has_responded, 20)
        listening.terminate()
        assert await asyncio.wait_for(listening.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            listening.kill()
