"""python -m tests.crash: a campaign in each world; prints, keeps the figures, judges."""

import asyncio
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import click
import msgspec

from tests.crash.campaign import Report, World, campaign

RESULTS: Final = Path(".guarantee/crash.json")
WORLDS: Final[tuple[World, ...]] = ("outside", "embedded")
STORE_KILLS: Final = 4  # kills of replicas for one of the store


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--kills", default=20, type=click.IntRange(2), help="Kills of replicas, all in all.")
@click.option("--seed", type=int, help="Of the first campaign; another each time if not given.")
@click.option("--world", type=click.Choice(WORLDS), multiple=True, default=WORLDS)
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path))
def main(kills: int, seed: int | None, world: tuple[World, ...], results: Path) -> None:
    """Kill replicas and stores under load, and judge what arrived."""
    # So that an end from outside, too, leaves no replica behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = random.randrange(1_000_000) if seed is None else seed  # noqa: S311
    share = kills // len(world)
    reports = [_run(one, share, seed + number) for number, one in enumerate(world)]
    results.parent.mkdir(exist_ok=True)
    results.write_bytes(msgspec.json.format(msgspec.json.encode(reports)))
    sys.exit(not all(report.sound for report in reports))


def _run(world: World, kills: int, seed: int) -> Report:
    print(f"{world}, seed {seed} …", file=sys.stderr, flush=True)
    began, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="crash-"))
    report = asyncio.run(
        campaign(
            folder,
            world,
            replica_kills=kills,
            store_kills=math.ceil(kills / STORE_KILLS),
            seed=seed,
        )
    )
    if report.sound:
        shutil.rmtree(folder)
    else:
        print(f"logs and data: {folder}", file=sys.stderr)
    print(told(report), f"\n{time.monotonic() - began:.0f} s", flush=True)
    return report


def told(report: Report) -> str:
    """The figures of a campaign, and what to do about what is wrong."""
    verdict = report.verdict
    lines = [
        f"{report.world}: {report.replica_kills} kills of replicas, {report.store_kills} of the "
        f"store, {report.freezes} freezes, {report.terms} orderly ends",
        f"  {verdict.messages} messages acknowledged, {report.unknown} without an answer, "
        f"{report.deleted} deleted",
        f"  lost {len(verdict.lost)}, ghosts {len(verdict.ghosts)}, early {len(verdict.early)}, "
        f"duplicates {verdict.duplicates} of at most {verdict.bound}",
        f"  worst recovery {verdict.recovery_s} s, late after healing {verdict.late_s} s",
    ]
    if not report.sound:
        wrong = [*verdict.lost, *verdict.ghosts, *verdict.early, *report.wrong]
        again = f"python -m tests.crash --seed {report.seed} --world {report.world}"
        lines += ["  UNSOUND", *(f"  {it}" for it in wrong[:20]), f"  again: {again}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
