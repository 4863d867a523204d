"""A command whose stdout or stderr cannot be written: one line that says so, the exit code."""

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from scheduler_api.store.store import Store
from tests.cli.test_main import server
from tests.conftest import PARTITIONS
from tests.support import stderr_streams
from tests.support.factories import accepted
from tests.support.waiting import wait_until
from tests.system.processes import environment, free_port

COMMAND = (sys.executable, "-m", "scheduler_api")
FULL = b"Error: cannot write to stdout (No space left on device)\n"
MANY = 100  # messages
PAYLOAD = "x" * 30_000  # with which they are more bytes than a buffer holds, or FILE_LIMIT
FILE_LIMIT = 1024**2  # bytes; coverage writes a file too


async def run(
    folder: Path, *arguments: str, output: str = "", **settings: str
) -> subprocess.CompletedProcess[bytes]:
    """A command; `output`: where the shell lets it write."""
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
def outside(valkey: str, prefix: str) -> dict[str, str]:
    """Settings that name the store of this test."""
    return {"REDIS_URL": valkey, "REDIS_PREFIX": prefix, "PARTITIONS": str(PARTITIONS)}


@pytest.fixture
async def messages(live_store: Store) -> int:
    """Pending in that store → how many."""
    await live_store.check_all()
    creates = (
        live_store.messages.create(f"m{number}", accepted(payload=PAYLOAD))
        for number in range(MANY)
    )
    await asyncio.gather(*creates)
    return MANY


@pytest.mark.parametrize("command", ["--help", "fsck --json"])
async def test_what_cannot_be_printed_is_one_line_and_exit_1(
    command: str, tmp_path: Path, outside: dict[str, str], live_store: Store
) -> None:
    await live_store.check_all()
    done = await run(tmp_path, *command.split(), output="> /dev/full", **outside)
    assert (done.returncode, done.stderr) == (1, FULL)


@pytest.mark.parametrize(("command", "stderr"), [("version", "2>&-"), ("fsck", "2> /dev/full")])
async def test_a_stderr_that_cannot_be_written_fails_no_command(
    command: str, stderr: str, tmp_path: Path, outside: dict[str, str], live_store: Store
) -> None:
    await live_store.check_all()
    done = await run(tmp_path, command, output=stderr, **outside)
    assert done.returncode == 0
    assert done.stdout


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ("> /dev/full", FULL),
        ("> /dev/full 2> /dev/full", b""),
        (">&-", b"Error: stdout is closed: give a FILE\n"),
    ],
)
async def test_an_export_that_cannot_be_written_is_one_line_and_exit_1(
    output: str, told: bytes, tmp_path: Path, outside: dict[str, str], messages: int
) -> None:
    assert messages
    done = await run(tmp_path, "export", "-", output=output, **outside)
    assert (done.returncode, done.stderr) == (1, told)


async def test_an_export_whose_reader_has_gone_is_one_line_and_exit_1(
    tmp_path: Path, outside: dict[str, str], messages: int
) -> None:
    assert messages
    with stderr_streams.opened("pipe without its reader", tmp_path) as pipe:
        done = await asyncio.to_thread(
            subprocess.run,
            (*COMMAND, "export", "-"),
            cwd=tmp_path,
            env=environment(**outside),
            stdout=pipe.descriptor,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == b"Error: cannot write to stdout (Broken pipe)\n"


async def test_an_export_onto_a_full_disk_says_how_to_go_on_and_does(
    tmp_path: Path, outside: dict[str, str], messages: int
) -> None:
    limited = ("prlimit", f"--fsize={FILE_LIMIT}", *COMMAND, "export", "all")
    done = await asyncio.to_thread(
        subprocess.run,
        limited,
        cwd=tmp_path,
        env=environment(**outside),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    told = b"cannot write all.part (File too large): fix this, then continue with --resume\n"
    assert done.stderr == b"Error: " + told
    resumed = await run(tmp_path, "export", "all", "--resume", **outside)
    assert resumed.returncode == 0, resumed.stderr
    lines = (tmp_path / "all").read_bytes().splitlines()
    assert {json.loads(line)["id"] for line in lines} == {f"m{n}" for n in range(messages)}


async def test_a_health_check_answers_by_its_exit_code_alone(tmp_path: Path) -> None:
    with server(200) as port:
        output = "> /dev/full 2> /dev/full"
        done = await run(tmp_path, "healthcheck", output=output, API_PORT=str(port))
    assert done.returncode == 0


async def test_a_receiver_whose_lines_cannot_be_printed_still_takes_webhooks(
    tmp_path: Path,
) -> None:
    port = free_port()
    command = (*COMMAND, "listen", "--port", str(port))
    with stderr_streams.opened("full device", tmp_path) as full:
        listening = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, env=environment(), stdout=full.descriptor
        )

    async def answered() -> bool:
        url = f"http://127.0.0.1:{port}/hello"
        with suppress(aiohttp.ClientConnectorError):
            async with aiohttp.request("POST", url, data=b"hi") as answer:
                assert answer.status == 200
                return True
        return False

    try:
        await wait_until("an answer", answered, 20)
        listening.terminate()
        assert await asyncio.wait_for(listening.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            listening.kill()
