"""python -m bench [create|deliver|lateness]: run, print, exit 1 if something went wrong."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec

from bench.report import Options, surroundings, table
from bench.scenarios import create, deliver, lateness

SCENARIOS: dict[str, ModuleType] = {"create": create, "deliver": deliver, "lateness": lateness}


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("names", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option("--url", help="A running server, on this machine; without it, a fresh one each run.")
@click.option("--token", default="", help="Token of that server.")
@click.option("--runs", default=5, type=click.IntRange(1))
@click.option("--count", default=20_000, type=click.IntRange(1), help="Messages of a run.")
@click.option("--seconds", default=30, type=click.IntRange(1), help="Length of lateness.")
@click.option("--lead", type=float, help="Seconds left for creating what is to be delivered.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the raw runs there.")
def main(names: tuple[str, ...], file: Path | None, **asked: Any) -> None:
    """Measure create, deliver and lateness (all without a name) beside what they could be."""
    options = Options(**asked)
    found = surroundings()
    runs = {name: _measure(name, options) for name in names or SCENARIOS}
    for name, of_one in runs.items():
        print(f"\n{table(name, SCENARIOS[name].rows(of_one))}")
    print("\nCells: median [least–most] of", options.runs, "runs; the ratio pair by pair.")
    for title, text in found.items():
        print(f"{title}: {text}")
    print(f"settings: {_settings(runs, options)}")
    if file:
        file.write_bytes(_json(found, options, runs))
    sys.exit(_tell_problems(runs))


def _measure(name: str, options: Options) -> list[Any]:
    runs: list[Any] = []
    for index in range(options.runs):
        click.echo(f"{name} {index + 1}/{options.runs} …", err=True)
        runs.append(SCENARIOS[name].run(options, index))
    return runs


def _settings(runs: dict[str, list[Any]], options: Options) -> str:
    if options.url:
        return f"those of {options.url}"
    given = {name: SCENARIOS[name].SETTINGS for name in runs}
    own = ", ".join(
        f"{name}: " + (" ".join(f"{key}={value}" for key, value in own.items()) or "defaults")
        for name, own in given.items()
    )
    return f"embedded store with fsync always, one process; {own}"


def _json(found: dict[str, str], options: Options, runs: dict[str, list[Any]]) -> bytes:
    shown = msgspec.structs.replace(options, token="")
    raw = msgspec.json.encode({"surroundings": found, "options": shown, "runs": runs})
    return msgspec.json.format(raw) + b"\n"


def _tell_problems(runs: dict[str, list[Any]]) -> int:
    """Print them → the exit code."""
    wrong = [
        f"{name} {index}: {problem}"
        for name, of_one in runs.items()
        for index, run in enumerate(of_one, 1)
        for problem in SCENARIOS[name].problems(run)
    ]
    for line in wrong:
        click.echo(line, err=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    main(prog_name="python -m bench")
