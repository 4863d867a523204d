"""More clients than open files: idle clients do not block the others."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.system.processes import SERVE, serving

FEW_FILES = ("sh", "-c", 'ulimit -n 160 && exec "$0" "$@"', *SERVE)
CALLERS = 400
HALF_HEAD = b"POST /messages HTTP/1.1\r\nHost: x\r\n"
HALF_BODY = HALF_HEAD + b"Content-Length: 9\r\n\r\nhalf"
WHOLE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HALF_BODY, WHOLE], ids=["silent", "half a body", "idle"])
async def test_service_accepts_requests_with_more_idle_clients_than_open_files(
    tmp_path: Path, sent: bytes
) -> None:
    async with serving(tmp_path, FEW_FILES) as server, AsyncExitStack() as stack:
        for _ in range(CALLERS):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            stack.callback(writer.close)
            writer.write(sent)
        for _ in range(20):
            assert (await server.ask("GET", "/health/live"))[0] == 200
            await server.create(webhookUrl="http://127.0.0.1:8999/", delay=60)
        assert await server.stop() == 0
        assert not server.events("request_failed")
