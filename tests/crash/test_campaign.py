"""Crash campaigns of a few seconds; `make crash` runs longer ones."""

from pathlib import Path

import pytest

from tests.crash.campaign import World, campaign

# Kills of replicas; with this seed, one of the embedded world kills the owner of the store.
KILLS: dict[World, int] = {"external": 2, "embedded": 3}
SEED = 1


@pytest.mark.parametrize("world", KILLS)
async def test_campaign_loses_no_acknowledged_message(tmp_path: Path, world: World) -> None:
    report = await campaign(tmp_path, world, replica_kills=KILLS[world], store_kills=1, seed=SEED)
    assert report.sound, report
    assert report.verdict.messages > 0
    assert report.fsck.endswith("no problems found")
