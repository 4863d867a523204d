"""python -m tests.crash: one campaign a world, races and a herd; prints and saves the figures."""

import asyncio
import math
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

import click
import msgspec

from tests.crash.campaign import Report, World, campaign
from tests.crash.herd import Herd, stampede
from tests.crash.races import Races, race
from tests.crash.results import Results
from tests.support.external_store import ExternalStore
from tests.support.receiver import receiving
from tests.system.processes import Server, serving_in_two

RESULTS: Final = Path(".guarantee/crash.json")
WORLDS: Final[tuple[World, ...]] = ("external", "embedded")
STORE_KILLS: Final = 4  # kills of replicas for each kill of the store
SHOWN: Final = 20  # findings that are printed


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.option("--kills", default=20, type=click.IntRange(2), help="Kills of replicas in total.")
@click.option("--seed", type=int, help="Seed of the first campaign; random if not given.")
@click.option("--world", type=click.Choice(WORLDS), multiple=True, default=WORLDS)
@click.option(
    "--races", default=10_000, type=click.IntRange(1), help="Number of DELETEs that race a claim."
)
@click.option("--herd", default=20_000, type=click.IntRange(1), help="Messages due in one second.")
@click.option("--results", default=RESULTS, type=click.Path(path_type=Path))
def main(
    kills: int, seed: int | None, world: tuple[World, ...], races: int, herd: int, results: Path
) -> None:
    """Kill replicas and stores under load, and judge what arrived."""
    # So that SIGTERM, too, leaves no replica behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    seed = random.randrange(1_000_000) if seed is None else seed  # noqa: S311
    share = kills // len(world)
    reports = [_run(one, share, seed + number) for number, one in enumerate(world)]
    found = Results(reports, *asyncio.run(_rush(races, herd, seed)))
    print(shown_rush(found.races, found.herd))
    results.parent.mkdir(exist_ok=True)
    results.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    sys.exit(not found.sound)


def _run(world: World, kills: int, seed: int) -> Report:
    print(f"{world}, seed {seed} …", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix="crash-"))
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
    print(shown(report), flush=True)
    return report


async def _rush(races: int, herd: int, seed: int) -> tuple[Races, Herd]:
    """Races and a herd on two replicas without faults; their store syncs each write."""
    with tempfile.TemporaryDirectory(prefix="crash-") as name:
        store = ExternalStore(Path(name))
        await store.start()
        try:
            environ = store.environ | {"DESTINATION_CONCURRENCY": "1000"}
            async with serving_in_two(Path(name), **environ) as servers:
                return await _raced(servers, races, seed), await _stampeded(servers, herd)
        finally:
            await store.stop()


async def _raced(servers: tuple[Server, Server], count: int, seed: int) -> Races:
    async with receiving() as receiver:
        return await race([server.url for server in servers], receiver, count, seed)


async def _stampeded(servers: tuple[Server, Server], count: int) -> Herd:
    async with receiving() as receiver:
        return await stampede(servers, receiver, count)


def shown(report: Report) -> str:
    """The figures of a campaign, the findings, and how to repeat it."""
    verdict = report.verdict
    lines = [
        f"{report.world}, seed {report.seed}: {report.replica_kills} kills of replicas, "
        f"{report.store_kills} of the store, {report.freezes} freezes, {report.terms} orderly "
        f"ends in {report.seconds:.0f} s",
        f"  {verdict.messages} messages acknowledged, {report.unknown} without an answer, "
        f"{report.deleted} deleted",
        f"  lost {len(verdict.lost)}, ghosts {len(verdict.ghosts)}, early {len(verdict.early)}, "
        f"duplicates {verdict.duplicates} of at most {verdict.bound}, "
        f"open {verdict.open} of at most {verdict.limit:.0f}",
        f"  worst recovery {verdict.recovery_s} s, late after healing {verdict.late_s} s",
        f"  fsck: {report.fsck}",
    ]
    if not report.sound:
        wrong = [*verdict.lost, *verdict.ghosts, *verdict.early, *report.wrong]
        lines += ["  UNSOUND", *(f"  {it}" for it in wrong[:SHOWN]), f"  again: {_again(report)}"]
    return "\n".join(lines)


def _again(report: Report) -> str:
    options = {"kills": report.replica_kills, "seed": report.seed, "world": report.world}
    return " ".join(["python -m tests.crash", *(f"--{k} {v}" for k, v in options.items())])


def shown_rush(races: Races, herd: Herd) -> str:
    """The figures of races and herd, and the findings."""
    lines = [
        f"races: {races.count} deletes about the due time: {races.deleted} answered 200 and never "
        f"sent; {races.in_flight} in flight, {races.sent} too late, each sent once",
        f"herd: {herd.messages} due in one second, all there after {herd.seconds} s; memory grew "
        f"by {herd.grown_mib} MiB; {herd.created} creates meanwhile, the slowest "
        f"{herd.slowest_create_ms} ms",
    ]
    wrong = [*races.wrong, *herd.wrong]
    return "\n".join([*lines, *(f"  UNSOUND {it}" for it in wrong[:SHOWN])])


if __name__ == "__main__":
    main()
