"""A campaign of a few seconds; `make crash` runs longer ones, on an embedded store too."""

from pathlib import Path

from tests.crash.campaign import campaign


async def test_what_was_acknowledged_arrives_whatever_dies(tmp_path: Path) -> None:
    report = await campaign(tmp_path, "outside", replica_kills=2, store_kills=1, seed=1)
    assert report.sound, report
    assert report.verdict.messages > 0
