"""One attempt: the bytes that are sent, and the record of the response."""

import base64
import socket
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from msgspec.structs import replace
from standardwebhooks import Webhook

from scheduler_api import __version__
from scheduler_api.delivery.http.sender import AttemptStart, Sender, Sent
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.signing import parse_secrets
from scheduler_api.store.store import Store
from tests.delivery.conftest import Claims, send
from tests.support.factories import LOOPBACK, accepted
from tests.support.partitions import queue_of
from tests.support.raw_server import raw_server
from tests.support.receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()


async def test_send_sends_the_body_byte_for_byte(
    sender: Sender, live_store: Store, receiver: Receiver
) -> None:
    body = b'{"z": 1.10,\t"a": 12345678901234567890.10, "e": "\\u00e9"}'
    new = accepted(webhookUrl=receiver.url)
    await live_store.messages.create("m", replace(new, spec=replace(new.spec, body=body)))
    (claimed,) = (await queue_of(live_store, "m").claim(1)).messages
    sent = await send(sender, claimed)
    assert receiver.bodies() == [body]
    assert sent.attempt.status == 200
    assert sent.attempt.error is None
    assert sent.attempt.response_excerpt == "seen"
    assert sent.attempt.number == 1
    assert sent.attempt.lateness_ms >= 0


async def test_send_adds_its_headers(sender: Sender, claim: Claims, receiver: Receiver) -> None:
    claimed = await claim(receiver.url, "order 7 é", payload={"a": 1})
    await send(sender, claimed)
    headers = receiver.requests[0].headers
    assert headers["User-Agent"] == f"scheduler-api/{__version__}"
    assert headers["Content-Type"] == "application/json"
    assert headers["Scheduler-Message-Id"] == "order%207%20%C3%A9"
    assert headers["Scheduler-Attempt"] == "1"
    assert headers["Scheduler-Scheduled-For"] == claimed.scheduled_at.isoformat(
        timespec="milliseconds"
    ).replace(".000", "")
    assert headers["webhook-id"] == headers["Idempotency-Key"]
    assert "webhook-signature" not in headers
    assert headers["Accept-Encoding"] == "identity"


async def test_send_repeats_the_webhook_id_for_attempts_of_one_message_only(
    sender: Sender, claim: Claims, live_store: Store, receiver: Receiver
) -> None:
    claimed = await claim(receiver.url)
    await send(sender, claimed)
    await send(sender, claimed)
    await queue_of(live_store, "m").release([claimed])
    await live_store.messages.cancel("m")
    await send(sender, await claim(receiver.url))
    first, again, reused = (request.headers["webhook-id"] for request in receiver.requests)
    assert first == again != reused


async def test_send_without_body_has_no_content_type(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    await send(sender, await claim(receiver.url, method="GET"))
    (request,) = receiver.requests
    assert (request.method, request.body) == ("GET", b"")
    assert "Content-Type" not in request.headers


async def test_send_lets_the_messages_headers_replace_its_own_without_case(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    own = {"user-agent": "mine", "IDEMPOTENCY-key": "theirs", "X-Api-Key": "k"}
    await send(sender, await claim(receiver.url, headers=own))
    headers = receiver.requests[0].headers
    assert headers.getall("User-Agent") == ["mine"]
    assert headers.getall("Idempotency-Key") == ["theirs"]
    assert headers["X-Api-Key"] == "k"


async def test_send_sends_text_as_text(sender: Sender, claim: Claims, receiver: Receiver) -> None:
    await send(sender, await claim(receiver.url, contentType="text/plain", payload="olá"))
    (request,) = receiver.requests
    assert request.body == "olá".encode()
    assert request.headers["Content-Type"] == "text/plain"


async def test_send_calls_an_international_url_in_ascii(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    await send(sender, await claim(f"{receiver.url}/preço?q=日本&r=%20"))
    assert receiver.requests[0].path == "/hook/pre%C3%A7o?q=%E6%97%A5%E6%9C%AC&r=%20"


async def test_send_encodes_text_in_the_charset_of_its_type(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    content_type = "text/plain; charset=iso-8859-1"
    await send(sender, await claim(receiver.url, payload="olá", contentType=content_type))
    (request,) = receiver.requests
    assert request.body == b"ol\xe1"
    assert request.headers["Content-Type"] == content_type


async def test_send_signs_for_the_standard_webhooks_library(
    claim: Claims, receiver: Receiver
) -> None:
    async with open_transport(LOOPBACK) as transport:
        sender = Sender(
            transport,
            timeout=timedelta(seconds=5),
            secrets=parse_secrets(SECRET),
        )
        await send(sender, await claim(receiver.url, payload={"a": "é"}))
    (request,) = receiver.requests
    assert Webhook(SECRET).verify(request.body, dict(request.headers)) == {"a": "é"}


async def test_send_returns_retry_after(sender: Sender, claim: Claims, receiver: Receiver) -> None:
    receiver.statuses, receiver.answer_headers = [503], {"Retry-After": "120"}
    sent = await send(sender, await claim(receiver.url))
    assert sent.attempt.status == 503
    assert sent.retry_after == timedelta(minutes=2)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_send_does_not_follow_a_redirect_and_records_its_location(
    sender: Sender, claim: Claims, receiver: Receiver, status: int
) -> None:
    receiver.statuses, receiver.answer_headers = [status], {"Location": receiver.url}
    sent = await send(sender, await claim(receiver.url))
    assert (sent.attempt.status, sent.attempt.location) == (status, receiver.url)
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("status", "given", "shown"),
    [
        (302, b"Location: /" + b"x" * 300, "/" + "x" * 199),
        (302, "Location: /é".encode(), "/é"),
        (302, b"Location: /\xff", "/\N{REPLACEMENT CHARACTER}"),
        (302, b"Location: /a\r\nLocation: /b", "/a"),
        (302, b"Location:", None),
        (302, b"X: y", None),
        (200, b"Location: /", None),
        (201, b"Location: /", None),
        (404, b"Location: /", None),
    ],
)
async def test_send_records_the_location_of_a_redirect_as_received(
    sender: Sender, claim: Claims, status: int, given: bytes, shown: str | None
) -> None:
    answer = b"HTTP/1.1 %d x\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, given)
    async with raw_server(answer) as url:
        sent = await send(sender, await claim(url))
    assert (sent.attempt.status, sent.attempt.location) == (status, shown)


@pytest.mark.parametrize("query", ["", "?", "?a=b?", "?a=%3F&b"])
async def test_send_keeps_path_and_query(sender: Sender, claim: Claims, query: str) -> None:
    heads: list[bytes] = []
    async with raw_server(b"HTTP/1.1 204 No\r\n\r\n", heads=heads) as url:
        await send(sender, await claim(f"{url}a/../b//%2f{query}"))
    assert heads[0].startswith(f"POST /a/../b//%2f{query} HTTP/1.1\r\n".encode())


async def test_send_keeps_no_cookies(sender: Sender, claim: Claims, receiver: Receiver) -> None:
    receiver.answer_headers = {"Set-Cookie": "a=b"}
    claimed = await claim(receiver.url)
    await send(sender, claimed)
    await send(sender, claimed)
    assert "Cookie" not in receiver.requests[1].headers


async def test_send_ignores_a_proxy_of_the_environment(
    sender: Sender,
    claim: Claims,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:2")
    sent = await send(sender, await claim(receiver.url))
    assert sent.attempt.status == 200


async def test_send_reads_only_the_beginning_of_a_long_response(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    written = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            written += 1

    receiver.answer = endless
    sent = await send(sender, await claim(receiver.url))
    assert sent.attempt.status == 200
    assert sent.attempt.response_excerpt == "x" * 4096
    assert written < 200  # what fits into the buffers of the sockets


async def test_send_records_a_body_that_arrives_after_its_head(
    sender: Sender, claim: Claims
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
    async with raw_server(head + b"begin", late=b" end.") as url:
        sent = await send(sender, await claim(url))
    assert (sent.attempt.status, sent.attempt.response_excerpt) == (200, "begin end.")


async def test_send_succeeds_with_a_2xx_head_and_an_incomplete_body(
    sender: Sender, claim: Claims
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"
    async with raw_server(head) as url:
        sent = await send(sender, await claim(url))
    assert (sent.attempt.status, sent.attempt.response_excerpt) == (200, "abc")


async def test_send_fails_with_timeout_without_a_response(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    receiver.hold.clear()
    sent = await send(sender, await claim(receiver.url, timeout="1s"))
    assert (sent.attempt.status, sent.attempt.error) == (None, "timeout")
    assert sent.attempt.duration_ms >= 900


@pytest.mark.parametrize(
    ("answer", "error"),
    [(b"", "disconnected"), (b"no http\r\n\r\n", "bad_response"), (b"HTTP/1.1 2", "disconnected")],
)
async def test_send_fails_if_the_response_is_not_http(
    sender: Sender, claim: Claims, answer: bytes, error: str
) -> None:
    async with raw_server(answer) as url:
        sent = await send(sender, await claim(url))
    assert (sent.attempt.status, sent.attempt.error) == (None, error)


@pytest.mark.parametrize("method", ["POST", "GET", "PUT", "PATCH", "DELETE"])
async def test_send_makes_one_request_for_each_method(
    sender: Sender, claim: Claims, method: str
) -> None:
    heads: list[bytes] = []
    async with raw_server(b"", heads=heads) as url:
        sent = await send(sender, await claim(url, method=method))
    assert sent.attempt.error == "disconnected"
    assert [head.partition(b" ")[0].decode() for head in heads] == [method]


async def test_send_fails_with_egress_denied_if_the_address_is_not_allowed(
    claim: Claims, receiver: Receiver
) -> None:
    async with open_transport(EgressRules()) as transport:
        sender = Sender(transport, timeout=timedelta(seconds=5), secrets=())
        sent = await send(sender, await claim(receiver.url))
    assert sent.attempt.error == "egress_denied"
    assert receiver.requests == []


async def test_send_fails_with_internal_error_after_a_bug(
    sender: Sender, claim: Claims, receiver: Receiver
) -> None:
    claimed = await claim(receiver.url)
    broken = replace(claimed, spec=replace(claimed.spec, headers={"X": "a\r\nb"}))
    sent = await send(sender, broken)
    assert sent.attempt.error == "internal_error"
    assert receiver.requests == []


async def test_cut_off_returns_an_attempt_with_shutdown(sender: Sender, claim: Claims) -> None:
    start = AttemptStart(datetime.now(UTC), time.monotonic() - 60)
    sent: Sent = sender.cut_off(await claim("http://127.0.0.1:2/"), start)
    assert (sent.attempt.number, sent.attempt.error) == (1, "shutdown")
    assert sent.attempt.started_at == start.at
    assert sent.attempt.duration_ms >= 60_000


async def test_send_fails_with_dns_error_for_a_host_that_cannot_be_decoded(
    sender: Sender, claim: Claims, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody_is_asked(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "no such name")

    monkeypatch.setattr(socket, "getaddrinfo", nobody_is_asked)
    sent = await send(sender, await claim("http://xn--/"))
    assert sent.attempt.error == "dns_error"
