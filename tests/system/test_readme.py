"""The commands of the README, run in order as a reader runs them, do what it says."""

import asyncio
import json
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import pytest

from tests.support.waiting import wait_until
from tests.system.processes import Server, environment, free_port, serving
from tests.test_documents import READMES, ROOT, block

# A line of the receiver; the group is the lateness.
ARRIVED = re.compile(
    r"\d\d:\d\d:\d\d\.\d{3}  POST /hello  [\w-]+  attempt 1  (\d+) ms late  "
    r"\{\"hello\": \"world\"\}"
)


def run_target() -> tuple[str, ...]:
    """The command of `make run`, with this environment instead of .venv."""
    output = subprocess.run(
        ["make", "-nC", ROOT, "run"], capture_output=True, text=True, check=True
    )
    [line] = [line for line in output.stdout.splitlines() if "scheduler-api serve" in line]
    script, *arguments = shlex.split(line)
    assert script == ".venv/bin/scheduler-api"
    return (sys.executable, "-m", "scheduler_api", *arguments)


class Reader:
    """A reader who runs the commands of the README, with free ports instead of 8000 and 8001."""

    def __init__(self, server: Server, ports: Callable[[str], str]) -> None:
        self.server = server
        self._ports = ports

    async def paste(self, script: str) -> str:
        """Run it in bash, in the server's directory → stdout."""
        process = await asyncio.create_subprocess_exec(
            *("bash", "-euc", self._ports(script)),
            cwd=self.server.folder,
            env=environment(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode()


@pytest.fixture(scope="module")
async def reader(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reader]:
    """The server as `make run` starts it, with a generated token."""
    port, listen = str(free_port()), str(free_port())

    def ports(text: str) -> str:
        return text.replace("8000", port).replace("8001", listen)

    command = tuple(map(ports, run_target()))
    folder = tmp_path_factory.mktemp("readme")
    given = {"API_TOKEN": "", "DATA_DIR": "", "EGRESS_ALLOW": ""}  # empty: not set
    async with serving(folder, command, int(port), **given) as server:
        yield Reader(server, ports)
        assert await server.stop() == 0


async def test_readme_scheduled_message_arrives(reader: Reader) -> None:
    created = json.loads(await reader.paste(block("README.md", "schedule")))
    assert created["status"] == "scheduled"

    def arrived() -> bool:
        return any(map(ARRIVED.fullmatch, reader.server.printed()))

    await wait_until("the line of the receiver", arrived, 20)
    [line] = [line for line in reader.server.printed() if created["messageId"] in line]
    found = ARRIVED.fullmatch(line)
    assert found
    assert int(found[1]) < 1000


def test_readme_line_of_the_receiver_has_the_printed_form() -> None:
    for document in READMES:
        assert ARRIVED.search((ROOT / document).read_text("utf-8"))


async def test_readme_names_the_places_of_the_token_and_the_documentation(reader: Reader) -> None:
    output = "\n".join(reader.server.printed())
    token = (reader.server.folder / "data" / "token").read_text().strip()
    assert token in output
    assert f":{reader.server.port}/docs" in output
    page = await reader.paste("curl --fail --silent http://localhost:8000/docs")
    assert "swagger-ui" in page


@pytest.mark.parametrize("document", READMES)
async def test_readme_call_with_all_fields_has_the_response_that_it_shows(
    reader: Reader, document: str
) -> None:
    created = await reader.paste(block(document, "create"))
    assert json.loads(created) == json.loads(block(document, "created"))


async def test_documents_show_the_response_to_put_of_a_destination(reader: Reader) -> None:
    page = "docs/destinations.md"
    shown = await reader.paste(block(page, "limit"))
    assert json.loads(shown) == json.loads(block(page, "limited"))
