"""A failover by Sentinel under traffic, with and without DURABILITY=replica."""

from pathlib import Path

import pytest

from tests.support import engines
from tests.support.configured_store import DURABLE
from tests.support.receiver import Receiver
from tests.system.processes import SERVE, serving
from tests.system.traffic import missing, traffic


@pytest.mark.parametrize("durability", ["replica", "store"])
async def test_failover_under_traffic_loses_no_message_with_replica_durability(
    tmp_path: Path, receiver: Receiver, durability: str
) -> None:
    """With `replica` no acknowledged message is lost; without it, losses are printed."""
    async with engines.watched_pair(tmp_path, *DURABLE, sentinels=3) as (master, replica, *watch):
        address = f"{engines.address('redis+sentinel', watch)}/{engines.MASTER}"
        environ = {"REDIS_URL": address, "DURABILITY": durability, "LEASE": "3s"}
        async with serving(tmp_path, SERVE, None, **environ) as server:
            async with traffic([server], receiver) as found:
                await found.more(100)
                before = found.refused
                await master.kill()
                if (
                    durability == "replica"
                ):  # the new master has no replica until the old one is back
                    await engines.promoted(replica, watch[0])
                    await master.start()
                await found.more(100)
            lost = await missing(found.acknowledged, receiver)
        result = (
            f"{len(found.acknowledged)} acknowledged, {found.refused} refused, {len(lost)} lost"
        )
        print(f"DURABILITY={durability}: {result}")
    assert found.refused > before
    assert durability == "store" or lost == set()
