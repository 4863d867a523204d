"""The benchmark's tables, its order of measuring, and the settings that it measures."""

from functools import partial
from math import inf
from types import SimpleNamespace

import pytest

from bench.__main__ import SCENARIOS
from bench.report import Row, figures, figures_by_name, table
from bench.turns import Sides, in_turn

# Scenario → the settings that differ from the defaults, only for the harness.
HARNESS = {"hang": {"SHUTDOWN_GRACE": "1s"}}


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_measures_the_default_settings(name: str) -> None:
    assert HARNESS.get(name, {}) == SCENARIOS[name].SETTINGS


def test_table_has_a_ratio_beside_each_column() -> None:
    row = Row("deliveries/s", [20.0], [10.0], {"WORKERS=2": [40.0]})
    assert table("deliver", [row], "bare").splitlines() == [
        "| deliver      | ours | bare | ratio | WORKERS=2 | ratio |",
        "| ------------ | ---- | ---- | ----- | --------- | ----- |",
        "| deliveries/s | 20   | 10   | 2.00  | 40        | 0.50  |",
    ]


def test_table_has_a_second_one_beside_the_peers() -> None:
    rows = [
        Row("p50, ms", [1.0], [2.0], peers={"arq": [4.0], "bullmq": [8.0]}),
        Row("foreign CPU, %", [0.0]),
    ]
    first, second = table("lateness", rows, "bare").split("\n\n")
    assert first.splitlines()[0] == "| lateness       | ours | bare | ratio |"
    assert second.splitlines() == [
        "| lateness | ours | arq | ratio | bullmq | ratio |",
        "| -------- | ---- | --- | ----- | ------ | ----- |",
        "| p50, ms  | 1    | 4   | 0.25  | 8      | 0.12  |",
    ]


def test_table_takes_ratios_run_by_run_and_shows_their_median_and_range() -> None:
    cells = Row("x", [10.0, 30.0, 20.0], [10.0, 10.0, 40.0]).cells({"bare": [10.0, 10.0, 40.0]})
    assert cells == ["x", "20 [10–30]", "10 [10–40]", "1.00 [0.50–3.00]"]


def test_table_shows_an_infinite_time_without_a_ratio() -> None:
    cells = Row("p99, ms", [5.0, 5.0]).cells({"arq": [inf, 7.0]})
    assert cells == ["p99, ms", "5", "never [7–never]", "0.71"]


def test_figures_leaves_out_runs_without_the_figure() -> None:
    runs = [SimpleNamespace(cpu=0.5), SimpleNamespace(cpu=None), SimpleNamespace(cpu=1)]
    assert figures(runs, "cpu") == [0.5, 1.0]
    assert figures_by_name([{"arq": run} for run in runs], "cpu") == {"arq": [0.5, 1.0]}


@pytest.mark.parametrize(("index", "order"), [(0, ["a", "b", "c"]), (1, ["c", "b", "a"])])
def test_in_turn_reverses_the_order_in_every_second_run(index: int, order: list[str]) -> None:
    measured: list[str] = []
    sides: Sides = {name: partial(measured.append, name) for name in ("a", "b", "c")}
    assert list(in_turn(index, sides)) == ["a", "b", "c"]
    assert measured == order
