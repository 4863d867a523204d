"""The try-out receiver: one line for each request."""

import base64
import io
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest

from scheduler_api.domain import signing
from scheduler_api.receiver import receiver
from scheduler_api.server.address import LOOPBACK

KEY = base64.b64decode("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0")


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def lines_of(
    client: aiohttp.ClientSession,
    method: str = "POST",
    path: str = "/hook",
    *,
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    secrets: tuple[bytes, ...] = (),
    status: int = 200,
) -> list[str]:
    lines: list[str] = []
    data = io.BytesIO(body)
    async with (
        receiver(LOOPBACK, 0, secrets, echo=lines.append) as address,
        client.request(method, address + path, headers=headers, data=data) as answer,
    ):
        assert answer.status == status
        assert status != 200 or await answer.json() == {"received": True}
    return lines


async def test_receiver_prints_id_attempt_lateness_and_body_of_a_webhook(
    client: aiohttp.ClientSession,
) -> None:
    due = datetime.now(UTC) - timedelta(seconds=2)
    headers = {
        "Scheduler-Message-Id": "m1",
        "Scheduler-Attempt": "3",
        "Scheduler-Scheduled-For": due.isoformat(),
    }
    (line,) = await lines_of(client, path="/a/b?token=x", headers=headers, body=b'{"n": 1}')
    at, call, message, attempt, late, body = line.split("  ")
    assert datetime.strptime(at, "%H:%M:%S.%f").replace(tzinfo=UTC)
    assert (call, message, attempt, body) == ("POST /a/b", "m1", "attempt 3", '{"n": 1}')
    assert 2000 <= int(late.removesuffix(" ms late")) < 4000


async def test_receiver_accepts_any_method_and_requests_without_headers(
    client: aiohttp.ClientSession,
) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        (line,) = await lines_of(client, method, "/")
        assert line.split("  ")[1:] == [f"{method} /"]


async def test_receiver_prints_the_standard_id_without_ours(client: aiohttp.ClientSession) -> None:
    (line,) = await lines_of(client, headers={"webhook-id": "w1"})
    assert line.split("  ")[1:] == ["POST /hook", "w1"]


@pytest.mark.parametrize("due", ["soon", "2026-01-01T00:00:00", ""])
async def test_receiver_prints_no_lateness_without_a_valid_instant(
    client: aiohttp.ClientSession, due: str
) -> None:
    (line,) = await lines_of(client, headers={"Scheduler-Scheduled-For": due})
    assert "late" not in line


def signed(body: bytes, timestamp: str | None = None) -> dict[str, str]:
    now = int(time.time())
    return {
        "webhook-id": "w1",
        "webhook-timestamp": str(now) if timestamp is None else timestamp,
        "webhook-signature": signing.sign((KEY,), "w1", now, body),
    }


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        (signed(b"body"), "signature valid"),
        (signed(b"other"), "SIGNATURE INVALID"),
        (signed(b"body", "yesterday"), "SIGNATURE INVALID"),
        (signed(b"body", "9" * 5000), "SIGNATURE INVALID"),
        ({}, "not signed"),
    ],
)
async def test_receiver_with_secrets_prints_whether_the_signature_is_valid(
    client: aiohttp.ClientSession, headers: dict[str, str], verdict: str
) -> None:
    (line,) = await lines_of(client, headers=headers, body=b"body", secrets=(KEY,))
    assert line.split("  ")[-2:] == [verdict, "body"]


async def test_receiver_cuts_a_long_body_and_escapes_control_characters(
    client: aiohttp.ClientSession,
) -> None:
    body = b"\x1b[2J\n\xff" + "á".encode() * 300
    (line,) = await lines_of(client, path="/%1b%0a", body=body)
    assert "\n" not in line
    assert "\x1b" not in line
    assert line.split("  ")[1] == "POST /\\x1b\\n"
    assert line.endswith("\\x1b[2J\\n\ufffd" + "á" * 194 + "…")


async def test_receiver_refuses_a_body_over_the_limit_and_prints_that(
    client: aiohttp.ClientSession,
) -> None:
    (line,) = await lines_of(client, body=b"x" * (1024**2 + 1), status=413)
    assert line.endswith("refused: larger than 1048576 bytes")
    assert await lines_of(client, body=b"x" * 1024**2)


async def test_receiver_listens_on_the_host_that_is_given() -> None:
    async with receiver(LOOPBACK, 0) as address:
        assert address.startswith("http://127.0.0.1:")
    async with receiver("::1", 0) as address:
        assert address.startswith("http://[::1]:")


async def test_receiver_prints_to_stdout_by_default(
    client: aiohttp.ClientSession, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiver(LOOPBACK, 0) as address, client.get(f"{address}/seen"):
        pass
    assert "GET /seen" in capsys.readouterr().out


async def test_receiver_on_a_used_port_raises_an_os_error_that_names_it() -> None:
    async with receiver(LOOPBACK, 0) as address:
        port = int(address.rpartition(":")[2])
        with pytest.raises(OSError, match=str(port)):
            async with receiver(LOOPBACK, port):
                pass  # pragma: no cover
