"""F35–F42: what name servers, networks and receivers do wrong, and how the attempt tells it."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
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
from tests.support.waiting import wait_until

BUFFERED = 16 * 1024 * 1024  # bytes: more than the sockets between two processes hold
HEAD = b"HTTP/1.1 200 OK\r\n"
BAD = (None, "bad_response")
LONG_AGO, YESTERDAY = (datetime.now(UTC) - timedelta(days=days) for days in (30, 1))

Answers = Callable[[Callable[[str], list[str]]], None]


async def ends(sender: Sender, claim: Claims, url: str, **fields: object) -> tuple[object, object]:
    """How an attempt there does: status, error."""
    attempt = (await send(sender, await claim(url, **fields))).attempt
    return attempt.status, attempt.error


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Sets what is answered for a name: its addresses, or a gaierror; no other is asked."""

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
async def test_a_name_without_address(
    sender: Sender, claim: Claims, name_server: Answers, code: int
) -> None:
    def none(_: str) -> list[str]:
        raise socket.gaierror(code, "as the resolver says it")

    name_server(none)
    assert await ends(sender, claim, "http://nowhere.example/") == (None, "dns_error")


async def test_a_name_that_nobody_resolves_delays_no_other(
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
        await wait_until("all names are asked for", lambda: len(asked) == 20)
        await live_store.messages.create("good", accepted(webhookUrl=receiver.url))
        await wait_until("the other", lambda: receiver.ids() == ["good"])

        async def retrying() -> bool:
            found = [await live_store.messages.get(f"m{number}") for number in range(20)]
            return {each.state for each in found} == {"retrying"}

        await wait_until("an attempt at each", retrying)
        silent = await live_store.messages.get("m7")
        assert [attempt.error for attempt in silent.attempts] == ["dns_error"]
        assert not answered.is_set()
    finally:
        answered.set()


async def test_of_fifty_addresses_four_are_dialled(
    sender: Sender, claim: Claims, name_server: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = [f"127.0.0.{number}" for number in range(101, 151)]
    name_server(lambda _: addresses)
    dialled: list[str] = []
    check = egress.EgressReport.check

    def note(report: egress.EgressReport, rules: object, address: str, port: int) -> None:
        dialled.append(address)
        check(report, rules, address, port)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(egress.EgressReport, "check", note)
    assert await ends(sender, claim, "http://many.example:2/") == (None, "connect_error")
    assert sorted(set(dialled)) == addresses[: resolver.MAX_ADDRESSES]


async def test_nobody_listens(sender: Sender, claim: Claims) -> None:
    assert await ends(sender, claim, "http://127.0.0.1:2/") == (None, "connect_error")


@pytest.fixture
def unanswered() -> Iterator[str]:
    """Host and port where calls are swallowed: nobody accepts those that came before."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        host, port = full.getsockname()
        for _ in range(2):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex((host, port))
        yield f"{host}:{port}"


async def test_no_connection_in_time_is_told_from_no_answer(
    sender: Sender, claim: Claims, unanswered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = aiohttp.ClientTimeout(total=None, sock_connect=0.3)
    monkeypatch.setattr(transport, "_TIMEOUT", soon)
    assert await ends(sender, claim, f"http://{unanswered}/") == (None, "connect_timeout")


async def test_no_connection_within_a_short_timeout_of_the_message_is_told_so_too(
    sender: Sender, claim: Claims, unanswered: str
) -> None:
    found = await ends(sender, claim, f"http://{unanswered}/", timeout="1s")
    assert found == (None, "connect_timeout")


async def test_a_reset_before_the_answer(sender: Sender, claim: Claims) -> None:
    async with dropping(0, reset=True) as here:
        url = f"http://127.0.0.1:{here.port}/"
        assert await ends(sender, claim, url) == (None, "disconnected")
    assert here.requests == ["POST"]


async def test_an_answer_cut_in_its_head_is_none_and_in_its_body_is_one(
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
            assert found == expected, f"{size} bytes of the answer came"


async def test_a_peer_that_fell_silent_frees_its_slot_at_the_timeout(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    upstream = ("127.0.0.1", urlsplit(receiver.url).port or 0)
    async with proxying(upstream, resp=False) as proxy:
        proxy.black_hole("down")
        url = f"http://127.0.0.1:{proxy.port}/"
        assert await ends(sender, claim, url, timeout="1s") == (None, "timeout")
    assert len(receiver.requests) == 1


async def test_a_kept_connection_that_its_server_has_closed_is_not_used_again(
    sender: Sender, claim: Claims
) -> None:
    left: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(HEAD + b"Content-Length: 0\r\n\r\n")
        writer.write_eof()
        left.append(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for number in range(3):
            found = await ends(sender, claim, url, message_id=f"m{number}", method="GET")
            assert found == (200, None)
            await wait_until("it has left", lambda: len(left) == number + 1)  # noqa: B023
    assert left == [b"", b"", b""], "one request a connection"


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Whom the sender trusts beside those whom the system trusts."""
    authority, trusting = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(trusting)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting)
    return authority


def serving_as(certificate: trustme.LeafCert) -> ssl.SSLContext:
    """What a server with that certificate needs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate.configure_cert(context)
    return context


async def test_a_certificate_that_is_in_order(
    sender: Sender, claim: Claims, authority: trustme.CA
) -> None:
    tls = serving_as(authority.issue_cert("127.0.0.1"))
    async with raw_server(HEAD + b"Content-Length: 0\r\n\r\n", tls) as url:
        assert await ends(sender, claim, url) == (200, None)


@pytest.mark.parametrize("wrong", ["authority", "name", "time"])
async def test_a_certificate_that_is_not_in_order_gets_no_request(
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


async def test_a_server_without_tls_at_an_https_url(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    url = receiver.url.replace("http:", "https:")
    assert await ends(sender, claim, url) == (None, "tls_error")
    assert receiver.requests == []


async def test_a_handshake_that_stalls_is_no_connection(
    sender: Sender, claim: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    soon = aiohttp.ClientTimeout(total=None, sock_connect=0.3)
    monkeypatch.setattr(transport, "_TIMEOUT", soon)
    async with mute_server() as here:
        assert await ends(sender, claim, f"https://{here}/") == (None, "connect_timeout")


async def test_large_answers_to_many_at_once_are_not_kept_in_memory(
    sender: Sender, claim: Claims
) -> None:
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
    assert sum(written) < many * len(body) / 2, "most was not even sent"
    assert grown < 64 * 1024 * 1024, "ten times less than what was to be sent"


def forget_peak() -> int:
    """Start to look for the most memory that this process has had → what it has now, bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak()


def peak() -> int:
    """The most memory that this process has had since, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def test_an_answer_that_drips_is_a_success_and_ends_at_the_timeout(
    sender: Sender, claim: Claims
) -> None:
    answer = HEAD + b"\r\n"
    async with endless_server(answer, b"x", every=0.02) as (url, _):
        attempt = (await send(sender, await claim(url, timeout="1s"))).attempt
    assert (attempt.status, attempt.error) == (200, None)
    assert set(attempt.response_excerpt or "") == {"x"}
    assert attempt.duration_ms >= 900


async def test_an_answer_that_never_ends_is_left_after_its_beginning(
    sender: Sender, claim: Claims
) -> None:
    async with endless_server(HEAD + b"\r\n", b"x" * 65_536) as (url, written):
        assert await ends(sender, claim, url) == (200, None)
        await wait_until("its server has seen that", lambda: sum(written) > MAX_BODY_BYTES)
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
async def test_a_body_that_goes_wrong_frees_its_slot_at_once(
    sender: Sender, claim: Claims, begin: bytes, later: bytes
) -> None:
    async with cutting() as here:
        here.answers.append(([HEAD + begin, later], False))  # the server does not leave
        url = f"http://127.0.0.1:{here.port}/"
        attempt = (await send(sender, await claim(url, timeout="5m"))).attempt
    assert (attempt.status, attempt.error) == (200, None)
    assert attempt.duration_ms < 30_000


@pytest.mark.parametrize("more", [b"X: y\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"])
async def test_a_head_that_drips_is_no_answer(sender: Sender, claim: Claims, more: bytes) -> None:
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
async def test_a_head_that_never_ends_is_left_early(
    sender: Sender, claim: Claims, begin: bytes, more: bytes, found: tuple[object, object]
) -> None:
    async with endless_server(begin, more) as (url, written):
        assert await ends(sender, claim, url) == found
    assert sum(written) < BUFFERED
