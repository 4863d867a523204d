"""DELETE /messages/{id}: what is cancelled, and what is refused."""

import pytest

from scheduler_api.store.store import Store
from tests.api.conftest import Api
from tests.api.messages.calls import create, show, tried
from tests.support.message_states import Verdict
from tests.support.partitions import queue_of
from tests.support.problems import problem


async def test_delete_answers_as_the_original_did_and_frees_the_id(api: Api) -> None:
    await create(api, id="a", delay=60)
    async with api.client.delete("/messages/a") as response:
        assert response.status == 200
        assert await response.json() == {"status": "deleted", "messageId": "a"}
    async with api.client.get("/messages/a") as response:
        await problem(response, 404, "message_not_found")
    async with api.client.delete("/messages/a") as response:
        await problem(response, 404, "message_not_found")
    await create(api, id="a", delay=60)


async def test_delete_refuses_a_message_in_flight(api: Api, live_store: Store) -> None:
    await create(api, id="a")
    await queue_of(live_store, "a").claim(1)
    async with api.client.delete("/messages/a") as response:
        await problem(response, 409, "in_flight")
    assert (await show(api, "a"))["state"] == "delivering"


@pytest.mark.parametrize("verdict", ["delivered", "failed"])
async def test_delete_refuses_a_finished_message(
    api: Api, live_store: Store, verdict: Verdict
) -> None:
    await create(api, id="a")
    await tried(live_store, verdict)
    async with api.client.delete("/messages/a") as response:
        await problem(response, 404, "message_finished")
    assert (await show(api, "a"))["state"] == verdict
