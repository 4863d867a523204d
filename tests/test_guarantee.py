"""The table of results, from made-up results."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests import guarantee
from tests import test_documents as documents
from tests.crash.campaign import Report
from tests.crash.herd import Herd
from tests.crash.history import Verdict
from tests.crash.races import Races
from tests.crash.results import Results

SIM: dict[str, Any] = {
    "schedules": 100_000,
    "messages": 250_000,
    "repeats": 7,
    "exposed": 9,
    "events": {"crashes": 30_000, "store restarts": 40, "pauses": 50},
    "failures": [],
    "planted": 12,
    "caught": 12,
}


def verdict(**fields: Any) -> Verdict:
    """A verdict without violations, unless `fields` change it."""
    counted = {"messages": 1_000, "duplicates": 3, "bound": 5, "late_s": 0.04, "recovery_s": 1.26}
    return Verdict(**{"lost": [], "ghosts": [], "early": []} | counted | fields)


def report(**fields: Any) -> Report:
    """A report of the external store."""
    acts: dict[str, Any] = {"replica_kills": 10, "store_kills": 2, "freezes": 1, "terms": 1}
    rest: dict[str, Any] = {
        "unknown": 3,
        "deleted": 4,
        "wrong": [],
        "seconds": 30.0,
        "fsck": "no problems found",
    }
    return Report(world="external", seed=1, verdict=verdict(**fields), **acts, **rest)


def results(*campaigns: Report, **fields: Any) -> Results:
    """Results with correct races and herd, unless `fields` replace them."""
    found: dict[str, Any] = {"races": races(), "herd": herd()}
    return Results(list(campaigns), **found | fields)


def races(*wrong: str) -> Races:
    """Ten races."""
    return Races(deleted=5, in_flight=3, sent=2, wrong=list(wrong))


def herd(*wrong: str, created: int = 9) -> Herd:
    """A herd of 500 messages."""
    return Herd(500, created, slowest_create_ms=20.0, seconds=1.5, grown_mib=3.0, wrong=[*wrong])


def test_rows_add_the_campaigns_up() -> None:
    found = {what: cells for what, *cells in guarantee.rows(SIM, results(report(), report()))}
    assert found["kills of replicas"] == ["30,000", "20"]
    assert found["messages"] == ["250,000", "2,000"]
    assert found["sent again ≤ in flight at a fault"] == ["7 ≤ 9", "6 ≤ 10"]
    assert found["worst recovery"] == ["–", "1.3 s"]
    assert found["deletes raced against sending"] == ["–", "10"]
    assert found["due in the same second"] == ["–", "500"]
    assert found["planted bugs caught"] == ["12 of 12", "–"]


def test_rows_are_all_quoted_in_the_page_and_some_in_the_readme() -> None:
    names = [what for what, *_ in guarantee.rows(SIM, results(report()))]
    page, readme = (
        [row for row in documents.rows(it) if len(row) == 3 and row[0] in names]
        for it in ("docs/guarantee.md", "README.md")
    )
    assert [row[0] for row in page] == names
    assert len(readme) > 3
    assert all(row in page for row in readme)


def test_table_states_its_confidence_or_that_it_is_not_sound() -> None:
    assert "3 in 12," in guarantee.table(SIM, results(report()))
    assert "NOT SOUND" in guarantee.table(SIM, results(report(lost=["a"])))


@pytest.mark.parametrize("wrong", [{"lost": ["a"]}, {"early": ["a"]}, {"bound": 2}, {"late_s": 9}])
def test_sound_is_false_after_one_broken_promise(wrong: dict[str, Any]) -> None:
    assert guarantee.sound(SIM, results(report()))
    assert not guarantee.sound(SIM, results(report(), report(**wrong)))


@pytest.mark.parametrize(
    "wrong", [{"races": races("a")}, {"herd": herd("a")}, {"herd": herd(created=0)}]
)
def test_sound_is_false_after_a_wrong_race_or_herd(
    wrong: dict[str, Any],
) -> None:
    assert not guarantee.sound(SIM, results(report(), **wrong))


@pytest.mark.parametrize("wrong", [{"failures": [{}]}, {"caught": 11}])
def test_sound_is_false_after_a_simulation_with_failures_or_missed_mistakes(
    wrong: dict[str, Any],
) -> None:
    assert not guarantee.sound(SIM | wrong, results(report()))


def test_main_needs_both_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guarantee, "RESULTS", tmp_path)
    (tmp_path / "sim.json").write_bytes(msgspec.json.encode(SIM))
    assert guarantee.main() == 1
    assert "crash.json is missing" in capsys.readouterr().err
    (tmp_path / "crash.json").write_bytes(msgspec.json.encode(results(report())))
    assert guarantee.main() == 0
    assert "| lost | 0 | 0 |" in capsys.readouterr().out
