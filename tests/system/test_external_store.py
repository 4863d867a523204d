"""An external store: by URL, by host and password, over TLS, and during an outage."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import trustme

from tests.support.command_line import run_in
from tests.support.external_store import PASSWORD, ExternalStore
from tests.support.receiver import Receiver
from tests.support.stream_server import connected, tcp_server
from tests.system.processes import SERVE, Server, free_port, serving, started


@asynccontextmanager
async def tls_in_front_of(port: int, folder: Path) -> AsyncIterator[tuple[int, Path]]:
    """A TLS proxy for a plain port → its port, the certificate to trust."""
    authority = trustme.CA()
    trusted = folder / "authority.pem"
    authority.cert_pem.write_to_path(trusted)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with connected(port) as behind:
            await asyncio.gather(copy(reader, behind[1]), copy(behind[0], writer))

    async with tcp_server(serve, context) as front:
        yield front, trusted


async def deliver_one(server: Server, receiver: Receiver) -> None:
    await server.create(id="m", webhookUrl=receiver.url, delay=0.1)
    await server.reach("m", "delivered")
    assert len(receiver.requests) == 1
    assert not (server.folder / "data" / "owner.lock").exists(), "no embedded store was started"
    assert await server.stop() == 0


async def test_external_store_at_a_unix_socket_is_used(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    async with serving(tmp_path, REDIS_URL=external_store.address) as server:
        await deliver_one(server, receiver)


async def test_external_store_over_tls_is_used(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    async with tls_in_front_of(external_store.port, tmp_path) as (port, trusted):
        login = f":{quote(PASSWORD, safe='')}@"
        url = f"rediss://{login}127.0.0.1:{port}/0?ssl_ca_certs={quote(str(trusted))}"
        async with serving(tmp_path, REDIS_URL=url) as server:
            await deliver_one(server, receiver)


async def test_external_store_with_an_untrusted_certificate_is_reported_at_startup(
    tmp_path: Path, external_store: ExternalStore
) -> None:
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    async with tls_in_front_of(external_store.port, tmp_path) as (port, _):
        store = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={quote(str(stranger))}"
        own_port = str(free_port())
        done = await run_in(
            tmp_path, "serve", REDIS_URL=store, STRICT="1", API_TOKEN="t", API_PORT=own_port
        )
    assert done.returncode == 1
    assert (
        done.stderr.decode()
        .splitlines()[-1]
        .startswith("Error: The store's certificate is not trusted: set ssl_ca_certs in REDIS_URL")
    )


async def test_external_store_with_an_outage_loses_no_message(
    tmp_path: Path, external_store: ExternalStore, receiver: Receiver
) -> None:
    async with serving(tmp_path, SERVE, None, **external_store.environ) as server:
        await server.create(id="before", webhookUrl=receiver.url, delay=1.5)
        await external_store.stop()

        status, health, headers = await server.ask("GET", "/health")
        assert (status, health["status"]) == (503, "unhealthy")
        assert health["redis"] == "disconnected"
        assert int(headers["Retry-After"]) > 0
        body = {"id": "meanwhile", "webhookUrl": receiver.url}
        status, refused, headers = await server.ask("POST", "/messages", body)
        assert (status, refused["code"]) == (503, "store_unavailable")
        assert int(headers["Retry-After"]) > 0
        assert (await server.ask("GET", "/health/ready"))[0] == 503
        assert (await server.ask("GET", "/health/live"))[0] == 200
        await server.event("store_lost")

        await external_store.start()
        await server.ready()
        assert (await server.ask("GET", "/health"))[1]["redis"] == "connected"
        await server.reach("before", "delivered")
        assert (await server.ask("GET", "/messages/meanwhile"))[0] == 404
        assert await server.stop() == 0
    assert [it.headers["Scheduler-Message-Id"] for it in receiver.requests] == ["before"]


async def test_external_store_with_a_wrong_password_is_reported_by_log_api_and_commands(
    tmp_path: Path, external_store: ExternalStore
) -> None:
    wrong = external_store.environ | {"REDIS_PASSWORD": "wrong"}
    async with started(tmp_path, SERVE, None, **wrong) as server:
        event = await server.event("store_unavailable_at_start")
        assert "refused the login" in event["reason"]
        await server.event("store_lost")
        status, body, _ = await server.ask("GET", "/messages")
        assert (status, body["code"]) == (503, "store_unavailable")
        assert body["detail"] == event["reason"]
        done = await run_in(tmp_path, "fsck", stdin=b"", **wrong)
        assert done.returncode == 1
        assert done.stderr.decode() == f"Error: {event['reason']} ({event['cause']})\n"
        assert await server.stop() == 0
