"""python -m bench [SCENARIO …]: measures, prints Markdown tables; exit code 1 if a run failed."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import msgspec

from bench.peers.peer import PEERS
from bench.report import Options, surroundings, table
from bench.scenarios import (
    backlog,
    batch,
    create,
    deliver,
    hang,
    idle,
    lateness,
    memory,
    replicas,
    restart,
    scale,
    start,
    workers,
)

SCENARIOS: dict[str, ModuleType] = {
    "create": create,
    "batch": batch,
    "deliver": deliver,
    "workers": workers,
    "lateness": lateness,
    "replicas": replicas,
    "idle": idle,
    "memory": memory,
    "scale": scale,
    "start": start,
    "restart": restart,
    "hang": hang,
    "backlog": backlog,
}
ANYWHERE = ("create", "batch", "deliver", "lateness")  # scenarios that can measure a running server


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.argument("names", nargs=-1, type=click.Choice(list(SCENARIOS)))
@click.option(
    "--url", help="URL of a running server on this machine.  [default: a new server each run]"
)
@click.option("--token", default="", help="Token of the server at --url.")
@click.option("--runs", default=5, type=click.IntRange(1))
@click.option("--count", type=click.IntRange(1), help="Messages in a run.  [default: see README]")
@click.option(
    "--seconds", default=30, type=click.IntRange(1), help="Duration of lateness and idle."
)
@click.option("--lead", type=float, help="Seconds for creating the messages before they are due.")
@click.option(
    "--peer",
    "peers",
    multiple=True,
    type=click.Choice(list(PEERS)),
    help="Another scheduler to measure in the same runs; can be given several times.",
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="File for the raw results.")
def main(
    names: tuple[str, ...], file: Path | None, count: int | None, url: str | None, **asked: Any
) -> None:
    """Measure each scenario, or all of them, beside its ceiling."""
    chosen = names or tuple(SCENARIOS)
    if url and not set(chosen) <= set(ANYWHERE):
        raise click.UsageError(
            f"--url works with {', '.join(ANYWHERE)}; the other scenarios kill or fill servers"
        )
    found = surroundings()
    runs: dict[str, list[Any]] = {}
    wrong: list[str] = []
    for name in chosen:
        options = Options(count=count or SCENARIOS[name].COUNT, url=url, **asked)
        runs[name] = _measure(name, options, wrong)
        print(f"\n{_table(name, runs[name], options)}", flush=True)
        if file:  # after each scenario, so that an interrupted measurement keeps its results
            file.write_bytes(_json(found, options, runs))
    print("\nCells: median [least–most] of", asked["runs"], "runs; ratios are taken run by run.")
    for title, text in found.items():
        print(f"{title}: {text}")
    print(f"settings: {_settings(runs, url)}")
    for line in wrong:
        click.echo(line, err=True)
    sys.exit(1 if wrong else 0)


def _measure(name: str, options: Options, wrong: list[str]) -> list[Any]:
    """All runs of a scenario; problems are added to `wrong`, and the next run starts."""
    scenario, runs = SCENARIOS[name], []
    for index in range(options.runs):
        click.echo(f"{name} {index + 1}/{options.runs} …", err=True)
        try:
            runs.append(scenario.run(options, index))
        except (RuntimeError, OSError) as error:
            wrong.append(f"{name} {index + 1}: {error}")
        else:
            wrong += [f"{name} {index + 1}: {problem}" for problem in scenario.problems(runs[-1])]
    return runs


def _table(name: str, runs: list[Any], options: Options) -> str:
    scenario = SCENARIOS[name]
    title = f"{name}, {options.count:,}" if options.count else name
    return table(title, scenario.rows(runs) if runs else [], scenario.BESIDE)


def _settings(runs: dict[str, list[Any]], url: str | None) -> str:
    if url:
        return f"those of {url}"
    parts = ["fsync always; the defaults, except in a column that is named by a setting"]
    for name in runs:
        own = " ".join(f"{key}={value}" for key, value in SCENARIOS[name].SETTINGS.items())
        parts += [f"{name}: {own}"] * bool(own)
    return "; ".join(parts)


def _json(found: dict[str, str], options: Options, runs: dict[str, list[Any]]) -> bytes:
    shown = msgspec.structs.replace(options, token="")
    raw = msgspec.json.encode({"surroundings": found, "options": shown, "runs": runs})
    return msgspec.json.format(raw) + b"\n"


if __name__ == "__main__":
    main(prog_name="python -m bench")
