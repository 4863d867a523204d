"""Requests through a proxy, and receivers with a private certificate authority."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import structlog
import trustme

from scheduler_api.delivery.http import resolver
from scheduler_api.delivery.http import transport as transport_module
from scheduler_api.delivery.http.egress import trust_with
from scheduler_api.delivery.http.proxy import Proxy
from scheduler_api.delivery.http.sender import LookupPostponed, Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.domain.egress import EgressRules
from tests.delivery.conftest import Claims, send
from tests.delivery.http.conftest import Names
from tests.support.factories import LOOPBACK
from tests.support.forward_proxy import ForwardProxy, forward_proxy
from tests.support.raw_server import raw_server
from tests.support.receiver import Receiver
from tests.support.stream_server import tcp_server

LOGIN = "us%40er:pass%20word"
ENCODED = "Proxy-Authorization: Basic dXNAZXI6cGFzcyB3b3Jk"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Result = tuple[int | None, str | None]


@pytest.fixture
async def proxy() -> AsyncIterator[ForwardProxy]:
    async with forward_proxy() as proxy:
        yield proxy


@asynccontextmanager
async def sending(
    proxy: str, rules: EgressRules = LOOPBACK, ca_file: Path | None = None
) -> AsyncIterator[Sender]:
    async with open_transport(rules, proxy, ca_file) as transport:
        yield Sender(transport, timeout=timedelta(seconds=5), secrets=())


async def result(sender: Sender, claim: Claims, url: str, message_id: str = "m") -> Result:
    attempt = (await send(sender, await claim(url, message_id, payload={"a": 1}))).attempt
    return attempt.status, attempt.error


@pytest.fixture
def authority(tmp_path: Path) -> tuple[trustme.CA, Path]:
    """A private certificate authority, and the file with its certificate."""
    authority, file = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return authority, file


def serving_as(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    return context


# The proxy


async def test_send_plain_request_to_the_proxy_in_absolute_form(
    proxy: ForwardProxy, claim: Claims, receiver: Receiver
) -> None:
    host = receiver.url.split("/")[2]
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, f"{receiver.url}/a%2Fb?q=1") == (200, None)
    assert proxy.targets() == [f"POST http://{host}/hook/a%2Fb?q=1"]
    assert f"\r\nHost: {host}\r\n" in proxy.heads[0]
    (request,) = receiver.requests
    assert (request.path, request.body) == ("/hook/a%2Fb?q=1", b'{"a":1}')


async def test_send_tls_request_through_a_tunnel(
    proxy: ForwardProxy, claim: Claims, authority: tuple[trustme.CA, Path]
) -> None:
    ca, file = authority
    heads: list[bytes] = []
    async with (
        raw_server(EMPTY, serving_as(ca, "127.0.0.1"), heads) as url,
        sending(proxy.url.replace("//", f"//{LOGIN}@"), ca_file=file) as sender,
    ):
        assert await result(sender, claim, f"{url}p") == (200, None)
    host = url.split("/")[2]
    assert proxy.targets() == [f"CONNECT {host}"]
    assert ENCODED in proxy.heads[0]
    assert heads[0].startswith(b"POST /p HTTP/1.1\r\n")
    assert b"Proxy-Authorization" not in heads[0]


async def test_send_adds_the_login_to_plain_requests_and_not_for_receivers(
    proxy: ForwardProxy, claim: Claims, receiver: Receiver
) -> None:
    async with sending(proxy.url.replace("//", f"//{LOGIN}@")) as sender:
        for number in range(2):
            assert await result(sender, claim, receiver.url, f"m{number}") == (200, None)
    assert all(f"\r\n{ENCODED}\r\n" in head for head in proxy.heads)
    assert len(proxy.heads) == 2
    assert not any("Proxy-Authorization" in it.headers for it in receiver.requests)


@pytest.mark.parametrize("login", ["", f"{LOGIN}@"])
async def test_send_reuses_the_proxy_connection_of_a_destination(
    proxy: ForwardProxy, claim: Claims, receiver: Receiver, login: str
) -> None:
    async with sending(proxy.url.replace("//", f"//{login}")) as sender:
        for number in range(3):
            assert await result(sender, claim, receiver.url, f"m{number}") == (200, None)
    assert (len(proxy.heads), proxy.connections) == (3, 1)


@pytest.mark.parametrize("login", ["", f"{LOGIN}@"])
async def test_send_reuses_the_tunnel_to_a_destination(
    proxy: ForwardProxy, claim: Claims, authority: tuple[trustme.CA, Path], login: str
) -> None:
    ca, file = authority
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await read_request(reader):
            heads.append(head)
            writer.write(EMPTY)

    async with (
        tcp_server(serve, serving_as(ca, "127.0.0.1")) as port,
        sending(proxy.url.replace("//", f"//{login}"), ca_file=file) as sender,
    ):
        for number in range(3):
            found = await result(sender, claim, f"https://127.0.0.1:{port}/", f"m{number}")
            assert found == (200, None)
    assert (len(heads), proxy.connections) == (3, 1)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    """The head of a request; b'' at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(len(b'{"a":1}'))
    except asyncio.IncompleteReadError:
        return b""
    return head


async def test_send_gives_the_proxy_the_name_of_the_destination(
    proxy: ForwardProxy,
    claim: Claims,
    receiver: Receiver,
    names: Names,
) -> None:
    port = int(receiver.url.split(":")[2].split("/")[0])
    proxy.place = ("127.0.0.1", port)
    names({"hook.example": ["127.0.0.1"]})
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, f"http://hook.example:{port}/hook") == (200, None)
    assert proxy.targets() == [f"POST http://hook.example:{port}/hook"]


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    "addresses", [["10.0.0.5"], ["127.0.0.1", "10.0.0.5"], ["::ffff:169.254.169.254"]]
)
async def test_send_denies_a_name_with_an_address_that_is_not_allowed_before_the_proxy(
    proxy: ForwardProxy,
    claim: Claims,
    names: Names,
    scheme: str,
    addresses: list[str],
) -> None:
    names({"evil.example": addresses})
    async with sending(proxy.url) as sender:
        found = await result(sender, claim, f"{scheme}://evil.example:8000/")
    assert found == (None, "egress_denied")
    assert proxy.connections == 0


async def test_send_denies_an_address_that_is_not_allowed_before_the_proxy(
    proxy: ForwardProxy, claim: Claims
) -> None:
    async with sending(proxy.url, EgressRules()) as sender:
        assert await result(sender, claim, "http://127.0.0.1:2/") == (None, "egress_denied")
    assert proxy.connections == 0


async def test_send_by_proxy_fails_with_dns_error_if_the_destination_does_not_resolve(
    proxy: ForwardProxy,
    claim: Claims,
    names: Names,  # noqa: ARG001  which knows none
) -> None:
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, "http://nobody.example/") == (None, "dns_error")
    assert proxy.connections == 0


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_send_fails_with_proxy_error_if_the_proxy_is_unreachable(
    claim: Claims,
    names: Names,  # noqa: ARG001  which knows none
    scheme: str,
) -> None:
    async with forward_proxy() as gone:
        pass
    for number, url in enumerate((gone.url, "http://proxy.example:3128")):
        async with sending(url) as sender:
            with structlog.testing.capture_logs() as logs:
                found = await result(sender, claim, f"{scheme}://127.0.0.1:2/", f"m{number}")
        assert found == (None, "proxy_error")
        (event,) = [it for it in logs if it["event"] == "proxy_failed"]
        assert event["reason"].startswith("it cannot be reached: ")


async def test_send_makes_no_attempt_if_the_lookup_of_the_proxy_is_postponed(
    claim: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "MAX_THREADS", dict.fromkeys(resolver.MAX_THREADS, 0))
    monkeypatch.setattr(resolver, "QUEUE_TIMEOUT", 0.05)
    async with sending("http://proxy.example:3128") as sender:
        with pytest.raises(LookupPostponed):
            await result(sender, claim, "http://127.0.0.1:2/")


async def test_send_fails_with_proxy_error_if_the_proxy_does_not_accept(
    claim: Claims,
    unanswered: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    soon = aiohttp.ClientTimeout(total=None, connect=2, sock_connect=0.1)
    monkeypatch.setattr(transport_module, "_TIMEOUT", soon)
    async with sending(f"http://{unanswered}") as sender:
        assert await result(sender, claim, "http://127.0.0.1:2/") == (None, "proxy_error")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "it answered CONNECT with 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\nno", "it answered CONNECT with 502"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "it answered CONNECT with 403"),
        (b"SSH-2.0-OpenSSH\r\n", "it did not answer CONNECT"),
        (b"", "it did not answer CONNECT"),
    ],
)
async def test_send_fails_with_proxy_error_if_the_proxy_opens_no_tunnel(
    proxy: ForwardProxy, claim: Claims, answer: bytes, reason: str
) -> None:
    proxy.instead = answer
    async with sending(proxy.url) as sender:
        with structlog.testing.capture_logs() as logs:
            assert await result(sender, claim, "https://127.0.0.1:2/") == (None, "proxy_error")
    assert [it["reason"] for it in logs if it["event"] == "proxy_failed"] == [reason]


async def test_send_fails_with_proxy_error_if_the_proxy_refuses_the_login(
    proxy: ForwardProxy, claim: Claims
) -> None:
    proxy.instead = b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n"
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, "http://127.0.0.1:2/") == (None, "proxy_error")


async def test_send_records_another_status_of_the_proxy_as_that_of_the_receiver(
    proxy: ForwardProxy, claim: Claims
) -> None:
    proxy.instead = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, "http://127.0.0.1:2/") == (502, None)


async def test_send_without_proxy_records_407_as_the_status_of_the_receiver(
    claim: Claims, receiver: Receiver
) -> None:
    receiver.statuses = [407]
    async with sending("") as sender:
        assert await result(sender, claim, receiver.url) == (407, None)


async def test_send_fails_with_connect_timeout_if_the_proxy_is_silent(
    proxy: ForwardProxy, claim: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.silent = True
    soon = aiohttp.ClientTimeout(total=None, connect=0.2, sock_connect=2)
    monkeypatch.setattr(transport_module, "_TIMEOUT", soon)
    async with sending(proxy.url) as sender:
        assert await result(sender, claim, "https://127.0.0.1:2/") == (None, "connect_timeout")


async def test_send_fails_with_tls_error_for_an_invalid_certificate_behind_the_tunnel(
    proxy: ForwardProxy, claim: Claims
) -> None:
    async with (
        raw_server(EMPTY, serving_as(trustme.CA(), "127.0.0.1")) as url,
        sending(proxy.url) as sender,
    ):
        assert await result(sender, claim, url) == (None, "tls_error")


@pytest.mark.parametrize(
    ("text", "url", "header"),
    [
        ("http://h:3128", "http://h:3128", None),
        ("http://h/", "http://h", None),
        ("http://u:p@[::1]:80", "http://[::1]", "Basic dTpw"),
        ("http://u@h:3128", "http://h:3128", "Basic dTo="),
    ],
)
def test_parse_separates_the_login_from_the_url(text: str, url: str, header: str | None) -> None:
    proxy = Proxy.parse(text)
    assert str(proxy.url) == url
    assert proxy.headers.get("Proxy-Authorization") == header


# Certificate authorities


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_send_trusts_a_private_authority_only_with_its_file(
    proxy: ForwardProxy, claim: Claims, authority: tuple[trustme.CA, Path], by_proxy: bool
) -> None:
    ca, file = authority
    through = proxy.url if by_proxy else ""
    async with raw_server(EMPTY, serving_as(ca, "127.0.0.1")) as url:
        async with sending(through) as sender:
            assert await result(sender, claim, url, "without") == (None, "tls_error")
        async with sending(through, ca_file=file) as sender:
            assert await result(sender, claim, url, "with") == (200, None)


async def test_send_checks_the_name_in_a_certificate_of_a_private_authority(
    claim: Claims, authority: tuple[trustme.CA, Path]
) -> None:
    ca, file = authority
    async with (
        raw_server(EMPTY, serving_as(ca, "127.0.0.2")) as url,
        sending("", ca_file=file) as sender,
    ):
        assert await result(sender, claim, url) == (None, "tls_error")


def test_trust_with_adds_to_the_authorities_of_the_system(
    authority: tuple[trustme.CA, Path],
) -> None:
    systems = ssl.create_default_context().cert_store_stats()["x509_ca"]
    assert trust_with(authority[1]).cert_store_stats()["x509_ca"] == systems + 1
