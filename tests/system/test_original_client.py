"""A client written for the original service works; it uses only the standard library."""

import http.client
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import TOKEN, serving

LATER = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
BEARER = f"Bearer {TOKEN}"
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


class Reply(NamedTuple):
    """A response."""

    status: int
    body: dict[str, Any]
    headers: http.client.HTTPMessage


class Client:
    """Calls the service like the examples of the original."""

    def __init__(self, port: int) -> None:
        self._port = port

    def call(
        self, method: str, path: str, body: Any = None, authorization: str | None = BEARER
    ) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if authorization is not None:
            headers["Authorization"] = authorization
        try:
            connection.request(method, path, json.dumps(body) if body else None, headers)
            answer = connection.getresponse()
            return Reply(answer.status, json.loads(answer.read()), answer.headers)
        finally:
            connection.close()

    def schedule(self, **fields: Any) -> Reply:
        """Create a message with all four fields that the original requires."""
        body: dict[str, Any] = {
            "id": "msg-unique-id-123",
            "scheduleTo": f"{LATER:%Y-%m-%dT%H:%M:%S}.000Z",
        }
        body |= {"payload": {"message": "Olá", "data": {"customField": "valor"}}}
        body |= {"webhookUrl": "https://example.com/endpoint"}
        return self.call("POST", "/messages", body | fields)


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Client]:
    """One server for the module; no message is pending between two tests."""
    async with serving(tmp_path_factory.mktemp("original")) as server:
        yield Client(server.port)
        assert await server.stop() == 0


@pytest.fixture
def client(service: Client) -> Client:
    """A client of an empty server; messages that a test left are deleted."""
    for job in service.call("GET", "/messages").body["scheduledJobs"]:
        service.call("DELETE", f"/messages/{job['messageId']}")
    return service


def test_create_responds_as_the_original_does(client: Client) -> None:
    created = client.schedule()
    assert created.status == 201
    assert created.body == {
        "status": "scheduled",
        "messageId": "msg-unique-id-123",
        "scheduledFor": f"{LATER:%Y-%m-%dT%H:%M:%S}+00:00",
    }


@pytest.mark.parametrize("offset", ["+00:00", "-03:00", "+05:30"])
def test_create_with_an_offset_responds_in_utc(client: Client, offset: str) -> None:
    local = LATER.astimezone(datetime.fromisoformat(f"2026-01-01T00:00:00{offset}").tzinfo)
    created = client.schedule(scheduleTo=local.isoformat())
    assert created.status == 201
    assert created.body["scheduledFor"] == LATER.isoformat()


async def test_create_with_a_time_in_the_past_sends_at_once(
    client: Client, receiver: Receiver
) -> None:
    created = client.schedule(scheduleTo="2020-01-01T00:00:00.000Z", webhookUrl=receiver.url)
    assert created.status == 201
    await wait_until("the webhook", lambda: bool(receiver.requests))
    [request] = receiver.requests
    assert request.method == "POST"
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body) == {"message": "Olá", "data": {"customField": "valor"}}


def test_list_has_the_fields_of_the_original(client: Client) -> None:
    client.schedule(id="second", scheduleTo=(LATER + timedelta(hours=1)).isoformat())
    client.schedule(id="first")
    listed = client.call("GET", "/messages")
    assert listed.status == 200
    assert listed.body["count"] == 2
    assert re.fullmatch(f"{INSTANT}Z", listed.body["timestamp"])
    jobs = listed.body["scheduledJobs"]
    assert [job["messageId"] for job in jobs] == ["first", "second"], "soonest first"
    assert {"messageId", "nextRun", "trigger", "webhookUrl"} <= jobs[0].keys()
    assert jobs[0]["nextRun"] == LATER.isoformat()
    assert jobs[0]["trigger"] == f"date[{LATER:%Y-%m-%d %H:%M:%S} UTC]"
    assert jobs[0]["webhookUrl"] == "https://example.com/endpoint"


def test_delete_removes_the_message_and_frees_its_id(client: Client) -> None:
    client.schedule()
    deleted = client.call("DELETE", "/messages/msg-unique-id-123")
    assert deleted.status == 200
    assert deleted.body == {"status": "deleted", "messageId": "msg-unique-id-123"}
    assert client.call("GET", "/messages").body["count"] == 0
    assert client.schedule().status == 201


def test_health_has_the_fields_of_the_original_and_needs_no_token(client: Client) -> None:
    client.schedule()
    health = client.call("GET", "/health", authorization=None)
    assert health.status == 200
    uptime = health.body.pop("uptime")
    assert re.fullmatch(r"(\d+h )?(\d+m )?\d+s", uptime)
    del health.body["version"]
    assert health.body.pop("warnings") == []  # with it, the embedded store is durable
    assert health.body == {
        "status": "healthy",
        "redis": "connected",
        "scheduler": "running",
        "scheduled_jobs": 1,
    }


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/messages"), ("GET", "/messages"), ("DELETE", "/messages/x")]
)
def test_call_without_the_right_token_is_401(
    client: Client, method: str, path: str, authorization: str | None
) -> None:
    refused = client.call(method, path, authorization=authorization)
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert "Bearer" in refused.body["detail"]


def test_delete_of_an_unknown_message_is_404(client: Client) -> None:
    missing = client.call("DELETE", "/messages/nobody")
    assert missing.status == 404
    assert missing.body["detail"] == "There is no message with this id."


def test_create_with_a_pending_id_is_409(client: Client) -> None:
    client.schedule()
    again = client.schedule()
    assert again.status == 409
    assert "exists" in again.body["detail"]


@pytest.mark.parametrize(
    "fields",
    [
        {"webhookUrl": "not a URL"},
        {"webhookUrl": None},
        {"scheduleTo": "tomorrow"},
        {"scheduleTo": 7},
        {"id": ""},
    ],
)
def test_create_with_an_invalid_field_is_422_and_names_it(
    client: Client, fields: dict[str, Any]
) -> None:
    refused = client.schedule(**fields)
    assert refused.status == 422
    assert refused.body["errors"][0]["path"] == f"/{next(iter(fields))}"
    assert refused.body["detail"]
