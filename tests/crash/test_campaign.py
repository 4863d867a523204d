"""Campaigns of a few seconds; `make crash` runs longer ones."""

from pathlib import Path

import pytest

from tests.crash.campaign import World, campaign

# Of replicas; in the embedded world one is of who owns the store, by this seed.
KILLS: dict[World, int] = {"external": 2, "embedded": 3}
SEED = 1


@pytest.mark.parametrize("world", KILLS)
async def test_what_was_acknowledged_arrives_whatever_dies(tmp_path: Path, world: World) -> None:
    report = await campaign(tmp_path, world, replica_kills=KILLS[world], store_kills=1, seed=SEED)
    assert report.sound, report
    assert report.verdict.messages > 0
    assert report.fsck.endswith("no problems found")
