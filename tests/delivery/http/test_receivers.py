"""Faults F35–F42 of name servers, networks and receivers, and the result of the attempt."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
import trustme

from scheduler_api.delivery.http import egress, resolver, transport
from scheduler_api.delivery.http.response import MAX_BODY_BYTES
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.store.store import Store
from tests.delivery.conftest import Claims, Start, send
from tests.support.dropping_server import dropping
from tests.support.factories import accepted
from tests.support.fault_proxy import proxying
from tests.support.fragmenting_server import cutting
from tests.support.raw_server import endless_server, mute_server, raw_server
from tests.support.receiver import Receiver
from tests.support.stream_server import tcp_server
from tests.support.waiting import wait_until

BUFFERED = 16 * 1024 * 1024  # bytes: more than the sockets between two processes hold
HEAD = b"HTTP/1.1 200 OK\r\n"
BAD = (None, "bad_response")
LONG_AGO, YESTERDAY = (datetime.now(UTC) - timedelta(days=days) for days in (30, 1))

Answers = Callable[[Callable[[str], list[str]]], None]


async def ends(sender: Sender, claim: Claims, url: str, **fields: object) -> tuple[object, object]:
    """Status and error of an attempt."""
    attempt = (await send(sender, await claim(url, **fields))).attempt
    return attempt.status, attempt.error


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets how names resolve: addresses, or a gaierror; no name server is asked."""

    def use(answer: Callable[[str], list[str]]) -> None:
        def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
            kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*kind, (address, port)) for address in answer(host.decode())]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    return use


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(socket.EAI_NONAME, id="NXDOMAIN"),
        pytest.param(socket.EAI_AGAIN, id="SERVFAIL, or no name server answers"),
        pytest.param(socket.EAI_NODATA, id="no address"),
        pytest.param(socket.EAI_FAIL, id="refused"),
    ],
)
async def test_send_fails_with_dns_error_if_a_name_has_no_address(
    sender: Sender, claim: Claims, name_server: Answers, code: int
) -> None:
    def none(_: str) -> list[str]:
        raise socket.gaierror(code, "as the resolver says it")

    name_server(none)
    assert await ends(sender, claim, "http://nowhere.example/") == (None, "dns_error")


async def test_send_to_names_without_an_answer_delays_no_other_message(
    start: Start,
    live_store: Store,
    name_server: Answers,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolver, "RESOLVE_TIMEOUT", 0.2)
    asked, answered = set[str](), threading.Event()

    def hang(name: str) -> list[str]:
        asked.add(name)
        answered.wait(60)
        return ["127.0.0.1"]

    name_server(hang)
    try:
        await start()
        for number in range(20):
            url = f"http://silent{number}.example/"
            await live_store.messages.create(f"m{number}", accepted(webhookUrl=url))
        await wait_until("a lookup of each name", lambda: len(asked) == 20)
        await live_store.messages.create("good", accepted(webhookUrl=receiver.url))
        await wait_until("the other message", lambda: receiver.ids() == ["good"])

        async def retrying() -> bool:
            found = [await live_store.messages.get(f"m{number}") for number in range(20)]
            return {each.state for each in found} == {"retrying"}

        await wait_until("an attempt at each", retrying)
        silent = await live_store.messages.get("m7")
        assert [attempt.error for attempt in silent.attempts] == ["dns_error"]
        assert not answered.is_set()
    finally:
        answered.set()


async def test_send_tries_four_of_fifty_addresses(
    sender: Sender, claim: Claims, name_server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"127.0.0.{number}" for number in range(101, 151)]
    name_server(lambda _: addresses)
    tried: list[str] = []
    check = egress.EgressReport.check

    def note(report: egress.EgressReport, rules: object, address: str, port: int) -> None:
        tried.append(address)
        check(report, rules, address, port)  # type: ignore[arg-type]  # unchanged

    monkeypatch.setattr(egress.EgressReport, "check", note)
    assert await ends(sender, claim, "http://many.example:2/") == (None, "connect_error")
    assert sorted(set(tried)) == addresses[: resolver.MAX_ADDRESSES]


async def test_send_fails_with_connect_error_if_the_port_is_closed(
    sender: Sender, claim: Claims
) -> None:
    assert await ends(sender, claim, "http://127.0.0.1:2/") == (None, "connect_error")


async def test_send_fails_with_connect_timeout_without_a_connection(
    sender: Sender, claim: Claims, unanswered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = aiohttp.ClientTimeout(total=None, sock_connect=0.3)
    monkeypatch.setattr(transport, "_TIMEOUT", soon)
    assert await ends(sender, claim, f"http://{unanswered}/") == (None, "connect_timeout")


async def test_send_fails_with_connect_timeout_without_a_connection_in_the_messages_timeout(
    sender: Sender, claim: Claims, unanswered: str
) -> None:
    found = await ends(sender, claim, f"http://{unanswered}/", timeout="1s")
    assert found == (None, "connect_timeout")


async def test_send_fails_with_disconnected_after_a_reset(sender: Sender, claim: Claims) -> None:
    async with dropping(0, reset=True) as here:
        url = f"http://127.0.0.1:{here.port}/"
        assert await ends(sender, claim, url) == (None, "disconnected")
    assert here.requests == ["POST"]


async def test_send_fails_if_the_response_is_cut_in_its_head_and_not_in_its_body(
    sender: Sender, claim: Claims
) -> None:
    answer = HEAD + b"Content-Length: 4\r\n\r\n"
    async with raw_server(answer + b"body") as url:
        upstream = ("127.0.0.1", urlsplit(url).port or 0)
        for size in range(1, len(answer) + 5):
            async with proxying(upstream, resp=False) as proxy:
                proxy.cut_after(size)
                here = f"http://127.0.0.1:{proxy.port}/"
                found = await ends(sender, claim, here, message_id=f"m{size}")
            expected = (None, "disconnected") if size < len(answer) else (200, None)
            assert found == expected, f"{size} bytes of the response arrived"


async def test_send_fails_with_timeout_if_the_receiver_falls_silent(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    upstream = ("127.0.0.1", urlsplit(receiver.url).port or 0)
    async with proxying(upstream, resp=False) as proxy:
        proxy.black_hole("down")
        url = f"http://127.0.0.1:{proxy.port}/"
        assert await ends(sender, claim, url, timeout="1s") == (None, "timeout")
    assert len(receiver.requests) == 1


async def test_send_does_not_reuse_a_connection_that_the_receiver_closed(
    sender: Sender, claim: Claims
) -> None:
    left: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        writer.write_eof()
        left.append(await reader.read())

    async with tcp_server(serve) as port:
        url = f"http://127.0.0.1:{port}/"
        for number in range(3):
            found = await ends(sender, claim, url, message_id=f"m{number}", method="GET")
            assert found == (200, None)
            await wait_until("the closed connection", lambda: len(left) == number + 1)  # noqa: B023
    assert left == [b"", b"", b""], "one request for each connection"


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """An authority that the sender trusts, as well as those of the system."""
    authority, context = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(context)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", context)
    return authority


def serving_as(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """The TLS context of a server with that certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def test_send_accepts_a_valid_certificate(
    sender: Sender, claim: Claims, authority: trustme.CA
) -> None:
    tls = serving_as(authority.issue_cert("127.0.0.1"))
    async with raw_server(HEAD + b"Content-Length: 0\r\n\r\n", tls) as url:
        assert await ends(sender, claim, url) == (200, None)


@pytest.mark.parametrize("wrong", ["authority", "name", "time"])
async def test_send_makes_no_request_if_the_certificate_is_invalid(
    sender: Sender, claim: Claims, authority: trustme.CA, wrong: str
) -> None:
    certificate = {
        "authority": trustme.CA().issue_cert("127.0.0.1"),
        "name": authority.issue_cert("127.0.0.2"),
        "time": authority.issue_cert("127.0.0.1", not_before=LONG_AGO, not_after=YESTERDAY),
    }[wrong]
    heads: list[bytes] = []
    async with raw_server(HEAD, serving_as(certificate), heads) as url:
        assert await ends(sender, claim, url) == (None, "tls_error")
    assert heads == []


async def test_send_fails_with_tls_error_if_the_receiver_has_no_tls(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    url = receiver.url.replace("http:", "https:")
    assert await ends(sender, claim, url) == (None, "tls_error")
    assert receiver.requests == []


async def test_send_fails_with_connect_timeout_if_the_tls_handshake_stalls(
    sender: Sender, claim: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = aiohttp.ClientTimeout(total=None, sock_connect=0.3)
    monkeypatch.setattr(transport, "_TIMEOUT", soon)
    async with mute_server() as here:
        assert await ends(sender, claim, f"https://{here}/") == (None, "connect_timeout")


async def test_send_keeps_no_large_response_bodies_in_memory(sender: Sender, claim: Claims) -> None:
    body = b"x" * (10 * 1024 * 1024)
    many = 64
    async with endless_server(HEAD + b"Content-Length: %d\r\n\r\n" % len(body), body[:65_536]) as (
        url,
        written,
    ):
        claims = [await claim(url, f"m{number}") for number in range(many)]
        before = forget_peak()
        sent = await asyncio.gather(*(send(sender, claimed) for claimed in claims))
        grown = peak() - before
    assert {each.attempt.status for each in sent} == {200}
    assert {each.attempt.response_excerpt for each in sent} == {"x" * 4096}
    assert sum(written) < many * len(body) / 2, "most was not sent"
    assert grown < 64 * 1024 * 1024, "a tenth of all bodies"


def forget_peak() -> int:
    """Reset the peak memory of this process → the current one, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The peak memory of this process since the reset, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def test_send_succeeds_at_the_timeout_if_the_body_arrives_too_slowly(
    sender: Sender, claim: Claims
) -> None:
    answer = HEAD + b"\r\n"
    async with endless_server(answer, b"x", every=0.02) as (url, _):
        attempt = (await send(sender, await claim(url, timeout="1s"))).attempt
    assert (attempt.status, attempt.error) == (200, None)
    assert set(attempt.response_excerpt or "") == {"x"}
    assert attempt.duration_ms >= 900


async def test_send_stops_reading_a_body_without_end(sender: Sender, claim: Claims) -> None:
    async with endless_server(HEAD + b"\r\n", b"x" * 65_536) as (url, written):
        assert await ends(sender, claim, url) == (200, None)
        await wait_until("more than the maximum written", lambda: sum(written) > MAX_BODY_BYTES)
    assert sum(written) < BUFFERED


@pytest.mark.parametrize(
    ("begin", "later"),
    [
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n2\r\nok", b"\r\n?\r\n", id="a chunk's size"
        ),
        pytest.param(b"Transfer-Encoding: chunked\r\n\r\n2\r\nok", b"okay\r\n", id="a chunk's end"),
        pytest.param(b"Content-Length: 3\r\n\r\nok", b"okay", id="more than its length"),
        pytest.param(b"Content-Length: many\r\n\r\n", b"", id="no length"),
    ],
)
async def test_send_ends_at_once_if_the_body_is_invalid(
    sender: Sender, claim: Claims, begin: bytes, later: bytes
) -> None:
    async with cutting() as here:
        here.answers.append(([HEAD + begin, later], False))  # the server keeps the connection open
        url = f"http://127.0.0.1:{here.port}/"
        attempt = (await send(sender, await claim(url, timeout="5m"))).attempt
    assert (attempt.status, attempt.error) == (200, None)
    assert attempt.duration_ms < 30_000


@pytest.mark.parametrize("more", [b"X: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_send_fails_with_timeout_if_the_head_arrives_too_slowly(
    sender: Sender, claim: Claims, more: bytes
) -> None:
    begin = b"" if more.startswith(b"HTTP") else HEAD
    async with endless_server(begin, more, every=0.02) as (url, _):
        assert await ends(sender, claim, url, timeout="1s") == (None, "timeout")


@pytest.mark.parametrize(
    ("begin", "more", "found"),
    [
        pytest.param(HEAD, b"X: y\r\n" * 1000, (200, None), id="headers without end"),
        pytest.param(HEAD + b"X: ", b"y" * 65_536, (200, None), id="a header without end"),
        pytest.param(b"HTTP/1.1 200 ", b"y" * 65_536, BAD, id="a first line without end"),
        pytest.param(b"", b"y" * 65_536, BAD, id="no HTTP without end"),
    ],
)
async def test_send_stops_reading_a_head_without_end(
    sender: Sender, claim: Claims, begin: bytes, more: bytes, found: tuple[object, object]
) -> None:
    async with endless_server(begin, more) as (url, written):
        assert await ends(sender, claim, url) == found
    assert sum(written) < BUFFERED
