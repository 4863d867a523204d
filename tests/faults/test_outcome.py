"""What a 503 says about the change: not made, or unknown and safe to repeat."""

import asyncio
import io
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from scheduler_api.store.connection.uploads import CALL_BYTES, MAX_UPLOAD
from scheduler_api.store.messages import CREATE_BATCH
from tests.faults.conftest import PATIENCE, Service, replica
from tests.support.fault_proxy import FaultProxy, proxying, script_names
from tests.support.problems import problem
from tests.support.valkey import Valkey

LATER = {"webhookUrl": "http://127.0.0.1:2/", "delay": "1d"}
LARGE = CALL_BYTES // 4  # bytes of a payload; a call has a few of them
BURST = 100  # callers at once


async def ask(service: Service, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and body; each 503 must have Retry-After."""
    async with service.http.request(method, path, json=body) as response:
        found = await response.json(content_type=None)
        if response.status == 503:
            await problem(response, 503, found["code"])
            assert int(response.headers["Retry-After"]) > 0
        return response.status, found


async def stored(service: Service) -> int:
    return await service.store.messages.count()


@pytest.fixture
async def known(service: Service) -> Service:
    """A service whose store has all scripts, so that no reply is NOSCRIPT."""
    assert (await ask(service, "POST", "/messages", LATER | {"id": "first"}))[0] == 201
    assert (await ask(service, "DELETE", "/messages/first"))[0] == 200
    return service


@pytest.mark.parametrize("cut", [False, True])
async def test_create_whose_reply_is_lost_names_the_id_that_makes_its_repetition_safe(
    known: Service, proxy: FaultProxy, *, cut: bool
) -> None:
    if cut:
        proxy.cut_reply("create")
    else:
        proxy.swallow_reply("create")
    status, found = await ask(known, "POST", "/messages", LATER)
    assert (status, found["code"]) == (503, "outcome_unknown")
    again = LATER | {"id": found["messageId"]}
    assert (await ask(known, "POST", "/messages", again))[0] == 409
    assert await stored(known) == 1


async def test_batch_whose_reply_is_lost_names_the_ids_that_make_its_repetition_safe(
    known: Service, proxy: FaultProxy
) -> None:
    messages: list[Any] = [LATER, {"id": "wrong"}, LATER | {"id": "own"}]
    proxy.swallow_reply("create")
    status, found = await ask(known, "POST", "/messages/batch", {"messages": messages})
    assert (status, found["code"]) == (503, "outcome_unknown")
    first, wrong, own = found["messageIds"]
    assert (wrong, own) == (None, "own")
    again = {"messages": [LATER | {"id": first}, LATER | {"id": own}]}
    _, found = await ask(known, "POST", "/messages/batch", again)
    assert [one["status"] for one in found["results"]] == [409, 409]
    assert await stored(known) == 2


async def test_batch_reports_each_message_as_stored_unknown_or_not_tried(
    known: Service, proxy: FaultProxy
) -> None:
    proxy.swallow_reply("create", nth=2)
    messages = [LATER] * (3 * CREATE_BATCH)
    _, found = await ask(known, "POST", "/messages/batch", {"messages": messages})
    outcomes = [(one["status"], one["body"].get("code")) for one in found["results"]]
    assert outcomes == [
        *[(201, None)] * CREATE_BATCH,
        *[(503, "outcome_unknown")] * CREATE_BATCH,
        *[(503, "store_unavailable")] * CREATE_BATCH,
    ]
    assert await stored(known) == 2 * CREATE_BATCH
    for one in found["results"][CREATE_BATCH : 2 * CREATE_BATCH]:
        again = LATER | {"id": one["body"]["messageId"]}
        assert (await ask(known, "POST", "/messages", again))[0] == 409


async def test_cancel_whose_reply_is_lost_is_unknown(known: Service, proxy: FaultProxy) -> None:
    assert (await ask(known, "POST", "/messages", LATER | {"id": "a"}))[0] == 201
    proxy.swallow_reply("cancel")
    status, found = await ask(known, "DELETE", "/messages/a")
    assert (status, found["code"], found["messageId"]) == (503, "outcome_unknown", "a")
    assert (await ask(known, "DELETE", "/messages/a"))[0] == 404, "it was done"


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_settings_of_a_destination_whose_reply_is_lost_are_unknown(
    service: Service, proxy: FaultProxy, method: str
) -> None:
    path, body = "/destinations/host.example", {"paused": True}
    assert (await ask(service, "PUT", path, body))[0] == 200
    proxy.swallow_reply("set_limit")
    status, found = await ask(service, method, path, body if method == "PUT" else None)
    assert (status, found["code"]) == (503, "outcome_unknown")


async def test_settings_that_reached_some_partitions_only_are_unknown(
    upstream: Valkey, tmp_path: Path
) -> None:
    async with (
        proxying(upstream.socket, names=script_names(partitions=3)) as proxy,
        replica(proxy.address, tmp_path, PARTITIONS="3") as service,
    ):
        asked = 0

        async def leave(step: str, name: str) -> None:
            nonlocal asked
            asked += (step, name) == ("command", "set_limit")
            if asked == 2:
                await proxy.refuse()

        proxy.watch = leave
        path, body = "/destinations/host.example", {"paused": True}
        status, found = await ask(service, "PUT", path, body)
        assert (status, found["code"]) == (503, "outcome_unknown")
        proxy.watch = None
        await proxy.heal()
        await service.healed()
        assert (await ask(service, "PUT", path, body))[0] == 200


@pytest.mark.parametrize("script", ["get", "list"])
async def test_read_whose_reply_is_lost_has_changed_nothing(
    service: Service, proxy: FaultProxy, script: str
) -> None:
    proxy.swallow_reply(script)
    path = "/messages/a" if script == "get" else "/messages"
    status, found = await ask(service, "GET", path)
    assert (status, found["code"]) == (503, "store_unavailable")


async def test_script_that_fails_in_the_middle_leaves_the_outcome_unknown(
    upstream: Valkey, admin: Redis, tmp_path: Path
) -> None:
    """The script needs the right to publish after it has written the message."""
    rights = ("ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all", "-spublish")
    await admin.execute_command(*rights)  # type: ignore[no-untyped-call]
    login = upstream.address.replace("unix://", "unix://app:secret@")
    async with replica(login, tmp_path) as service:
        now = {"webhookUrl": "http://127.0.0.1:2/"}
        status, found = await ask(service, "POST", "/messages", now)
        assert (status, found["code"]) == (503, "outcome_unknown")
        assert "has no permission to run SPUBLISH" in found["detail"]
        assert (await ask(service, "GET", f"/messages/{found['messageId']}"))[0] == 200


async def test_promise_no_false_answer_to_a_burst_of_large_creates(
    proxy: FaultProxy, service: Service
) -> None:
    """One call with all of them would take longer than the store's timeout."""
    proxy.rate(2 * BURST * LARGE, "up")  # half a second for all of them over one connection
    large = LATER | {"payload": "x" * LARGE}
    assert PATIENCE <= 0.5
    answers = await asyncio.gather(
        *(ask(service, "POST", "/messages", large) for _ in range(BURST))
    )
    assert Counter(status for status, _ in answers) == {201: BURST}
    assert await stored(service) == BURST


async def test_large_message_has_time_by_its_size(proxy: FaultProxy, tmp_path: Path) -> None:
    size = 5 * CALL_BYTES
    async with replica(proxy.address, tmp_path, MAX_BODY="8MiB") as service:
        proxy.rate(size / (1.3 * PATIENCE), "up")  # longer than a small call may take
        large = io.BytesIO(json.dumps(LATER | {"payload": "x" * size}).encode())
        async with service.http.post("/messages", data=large) as response:
            assert response.status == 201


async def test_burst_at_a_stopped_store_has_an_unknown_outcome_only_for_sent_messages(
    upstream: Valkey, service: Service
) -> None:
    """The others are refused after the first calls have failed, and none is stored."""
    assert (await ask(service, "POST", "/messages", LATER))[0] == 201
    upstream.send_signal(signal.SIGSTOP)
    large = LATER | {"payload": "x" * LARGE}
    ids = [f"m{number}" for number in range(BURST)]
    answers = await asyncio.gather(
        *(ask(service, "POST", "/messages", large | {"id": it}) for it in ids)
    )
    upstream.send_signal(signal.SIGCONT)
    await service.healed()
    codes = Counter(found["code"] for _, found in answers)
    assert set(codes) <= {"outcome_unknown", "store_unavailable"}
    assert codes["store_unavailable"] >= BURST - 2 * MAX_UPLOAD // LARGE
    for message_id, (status, found) in zip(ids, answers, strict=True):
        assert status == 503
        if found["code"] == "store_unavailable":
            assert (await ask(service, "GET", f"/messages/{message_id}"))[0] == 404


async def test_burst_from_small_and_large_callers_is_stored_by_an_embedded_store(
    tmp_path: Path,
) -> None:
    """A few hundred callers with default settings; each message with a 201 is stored."""
    async with replica(None, tmp_path / "data") as service:
        bodies = [LATER | {"payload": "x" * (LARGE if n % 2 else 10)} for n in range(2 * BURST)]
        answers = await asyncio.gather(*(ask(service, "POST", "/messages", it) for it in bodies))
        assert Counter(status for status, _ in answers) == {201: 2 * BURST}
        assert await stored(service) == 2 * BURST
