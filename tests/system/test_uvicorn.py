"""`uvicorn scheduler_api:app`, with uvicorn's protocol and with ours."""

import sys
from pathlib import Path

import pytest

from tests.api.conftest import TOKEN
from tests.api.test_foreign_server import under_uvicorn
from tests.api.test_framing import LIMITS, PIPELINED, UPGRADE, Row
from tests.support.raw_client import exchange, head_and_body
from tests.system.processes import free_port, serving

OURS = ("--http", "scheduler_api.server.protocol:HttpProtocol")
NAMES = "h2c", "h2c in chunks", "h2c without a body", "a request as its body"
UPGRADES = [UPGRADE[name] for name in NAMES]
OTHERS = [PIPELINED["nonsense behind one"], LIMITS["head over the limit"]]


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ((), [under_uvicorn("upgrade", name, UPGRADE[name]) for name in NAMES]),
        (OURS, [*UPGRADES, *OTHERS]),
    ],
    ids=["its own protocol", "ours"],
)
async def test_request_gets_one_response_with_the_command_of_uvicorn(
    tmp_path: Path, options: tuple[str, ...], rows: list[Row]
) -> None:
    port = free_port()
    words = ["-m", "uvicorn", "scheduler_api:app", "--host", "127.0.0.1", "--port"]
    command = (sys.executable, *words, str(port), *options)
    async with serving(tmp_path, command, port, API_TOKEN=TOKEN) as server:

        async def until_read() -> None:
            """Wait for a response on a second connection: earlier bytes have been read then."""
            await server.ask("GET", "/health/live")

        stored = 0
        for row in rows:
            packets = head_and_body(row.request)
            found = await exchange(port, packets, len(row.statuses), until_read=until_read)
            assert [one.status for one in found.responses] == row.statuses
            assert found.kept == row.kept
            stored += row.stored
            _, body, _ = await server.ask("GET", "/messages", token=TOKEN)
            assert body["total"] == stored
        await server.stop()
