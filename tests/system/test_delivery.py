"""A message from its creation over HTTP to its arrival, with a real process."""

import base64
import json
from datetime import datetime
from pathlib import Path

from standardwebhooks.webhooks import Webhook

from scheduler_api import __version__
from tests.support.forward_proxy import forward_proxy
from tests.support.receiver import Received, Receiver
from tests.support.waiting import wait_until
from tests.system.processes import Server, serving

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
# A parser and an encoder would change all of this: spacing, order, escapes, precision.
PAYLOAD = b'{"b" : 1.0000000000000000001,"a":[ ],"\\u00e9":"\xc3\xa9\\/", "n":1e400}'


def checked_by_the_receivers_library(request: Received) -> None:
    headers = {name.lower(): value for name, value in request.headers.items()}
    Webhook(SECRET).verify(request.body, headers)  # raises if the signature is invalid


async def create_with_payload(server: Server, url: str) -> datetime:
    """Create the message `m`, due in 0.3 s → when it is due."""
    body = b'{"id":"m","webhookUrl":"%s?q=1","delay":0.3,"headers":{"X-Own":"7"},"payload":%s}'
    status, created, headers = await server.ask("POST", "/messages", body % (url.encode(), PAYLOAD))
    assert status == 201, created
    assert headers["Location"] == "/messages/m"
    return datetime.fromisoformat(created["scheduledFor"])


async def test_message_arrives_once_in_time_signed_and_byte_for_byte(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with serving(tmp_path, SIGNING_SECRET=SECRET) as server:
        scheduled_for = await create_with_payload(server, receiver.url)
        await server.reach("m", "delivered")
        _, message, _ = await server.ask("GET", "/messages/m")
        assert await server.stop() == 0

    [request] = receiver.requests
    assert (request.method, request.path, request.body) == ("POST", "/hook?q=1", PAYLOAD)
    assert 0 <= request.at - scheduled_for.timestamp() < 1, "never early, and soon"
    checked_by_the_receivers_library(request)
    headers = request.headers
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"] == f"scheduler-api/{__version__}"
    assert headers["Idempotency-Key"] == headers["webhook-id"]
    assert headers["Scheduler-Message-Id"] == "m"
    assert headers["Scheduler-Attempt"] == "1"
    assert datetime.fromisoformat(headers["Scheduler-Scheduled-For"]) == scheduled_for
    assert headers["X-Own"] == "7"

    assert datetime.fromisoformat(message["scheduledFor"]) == scheduled_for
    assert message["nextAttempt"] is None
    [attempt] = message["attempts"]
    assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 200, None)
    assert attempt["responseExcerpt"] == "seen"
    assert attempt["latenessMs"] >= 0


async def test_refused_message_is_sent_again_with_the_same_webhook_id(
    tmp_path: Path, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    async with serving(tmp_path, SIGNING_SECRET=SECRET) as server:
        await server.create(id="m", webhookUrl=receiver.url, payload={"n": 1})
        await server.reach("m", "retrying")
        _, waiting, _ = await server.ask("GET", "/messages/m")
        assert waiting["why"] == "waits for its next attempt; 1 of 8 attempts made; last: HTTP 500"
        await server.reach("m", "delivered")
        _, message, _ = await server.ask("GET", "/messages/m")

    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert [it.headers["Scheduler-Attempt"] for it in (first, second)] == ["1", "2"]
    assert first.headers["webhook-timestamp"] < second.headers["webhook-timestamp"]
    for request in (first, second):
        checked_by_the_receivers_library(request)
    assert json.loads(second.body) == {"n": 1}
    assert 4 <= second.at - first.at < 7, "5 s ± 20 %"
    assert [(it["number"], it["status"]) for it in message["attempts"]] == [(1, 500), (2, 200)]


async def test_promise_never_early(tmp_path: Path, receiver: Receiver) -> None:
    async with serving(tmp_path) as server:
        due = {}
        for n in range(20):
            body = {"id": str(n), "webhookUrl": receiver.url, "delay": 0.2 + n / 100}
            _, created, _ = await server.ask("POST", "/messages", body)
            due[str(n)] = datetime.fromisoformat(created["scheduledFor"]).timestamp()
        await wait_until("all twenty", lambda: len(receiver.requests) == len(due))
    for request in receiver.requests:
        assert request.at >= due[request.headers["Scheduler-Message-Id"]]


async def test_egress_proxy_carries_every_webhook_and_its_login_is_not_shown(
    tmp_path: Path, receiver: Receiver
) -> None:
    async with forward_proxy() as proxy:
        through = proxy.url.replace("//", "//user:s3cret@")
        async with serving(tmp_path, EGRESS_PROXY=through) as server:
            await create_with_payload(server, receiver.url)
            await server.reach("m", "delivered")
            assert await server.stop() == 0
    assert proxy.targets() == [f"POST {receiver.url}?q=1"]
    assert receiver.bodies() == [PAYLOAD]
    assert not any("s3cret" in line for line in [*server.printed(), *server.logged()])
