"""A receiver's machine is gone, and no packet reports it."""

from pathlib import Path
from typing import Final

import pytest

from tests.faults.conftest import replica
from tests.support.receiver import Receiver
from tests.support.remote_receiver import THERE, peer
from tests.support.valkey import Valkey

pytestmark = pytest.mark.machine

ONE_SLOT: Final = {"MAX_IN_FLIGHT": "1", "EGRESS_ALLOW": f"127.0.0.0/8,{THERE}"}


@pytest.mark.parametrize("path", ["/silent", "/kept"])
async def test_receiver_that_is_gone_holds_a_slot_no_longer_than_the_timeout(
    upstream: Valkey, receiver: Receiver, tmp_path: Path, path: str
) -> None:
    """F39. While a request is open, or before it, on a kept connection."""
    async with peer() as far, replica(upstream.address, tmp_path, **ONE_SLOT) as service:
        if path == "/kept":
            assert await service.create(id="before", webhookUrl=far.url + path) == 201
            await service.reach("before", "delivered")
            assert await far.heard() == path
            far.cut()
        assert await service.create(id="m", webhookUrl=far.url + path, timeout="2s") == 201
        if path == "/silent":
            assert await far.heard() == path
            far.cut()
        assert await service.create(id="next", webhookUrl=receiver.url) == 201
        await service.reach("m", "retrying")
        await service.reach("next", "delivered")
        async with service.http.get("/messages/m") as response:
            (attempt,) = (await response.json())["attempts"]
        assert (attempt["status"], attempt["error"]) == (None, "timeout")
        far.mend()
        await service.reach("m", "delivered")
        assert await far.heard() == path
