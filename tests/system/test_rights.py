"""The whole service with a Redis user that has only the documented permissions."""

from functools import partial
from pathlib import Path

from tests.support.acl import PASSWORD, granted
from tests.support.command_line import run_in
from tests.support.configured_store import DURABLE
from tests.support.receiver import Receiver
from tests.support.valkey import valkey_server
from tests.system.processes import serving


async def test_service_works_with_the_documented_permissions(
    tmp_path: Path, receiver: Receiver
) -> None:
    lines = (granted(), "user default off", *DURABLE)
    async with valkey_server(tmp_path, *lines) as store:
        url = f"unix://scheduler:{PASSWORD}@{store.socket}"
        async with serving(tmp_path, REDIS_URL=url) as service:
            await service.create(id="sent", webhookUrl=receiver.url, delay=0.1)
            await service.create(id="waits", webhookUrl=receiver.url, delay=3600)
            await service.create(id="cancelled", webhookUrl=receiver.url, delay=3600)
            assert (await service.ask("DELETE", "/messages/cancelled"))[0] == 200
            paused = await service.ask("PUT", "/destinations/example.org", {"paused": True})
            assert paused[0] == 200
            await service.reach("sent", "delivered")
            assert await service.stop() == 0
            assert service.events("store_not_durable") == service.events("store_lost") == []
        async with serving(tmp_path, REDIS_URL=url) as service:
            _, listed, _ = await service.ask("GET", "/messages")
            assert [row["messageId"] for row in listed["scheduledJobs"]] == ["waits"]
            run = partial(run_in, tmp_path, REDIS_URL=url, API_TOKEN="t", EGRESS_ALLOW="127.0.0.1")
            for command in (["fsck"], ["export", "out"], ["import", "out"]):
                done = await run(*command)
                assert done.returncode == 0, done.stderr
    assert receiver.ids() == ["sent"]
