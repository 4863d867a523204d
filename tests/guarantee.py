"""`python -m tests.guarantee`: prints one table of the results of simulation and crash campaigns.

Both write their results to .guarantee/. `make check` runs both, then prints the table.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from tests.crash.results import Results

RESULTS: Final = Path(".guarantee")
CONFIDENCE: Final = 3  # rule of three: 0 failures in n trials mean < 3 in n, with 95 % confidence
NOT_SHOWN: Final = "–"

Sim = Mapping[str, Any]  # as tests/sim writes them
Cells = tuple[str, str, str]  # name, value in simulation, value with real processes


def rows(sim: Sim, crash: Results) -> list[Cells]:
    """The rows of the table."""
    campaigns = crash.campaigns
    verdicts = [report.verdict for report in campaigns]
    events, broken = sim["events"], _count(len(sim["failures"]))
    duplicates = sum(it.duplicates for it in verdicts)
    bound = sum(it.bound for it in verdicts)
    return [
        ("schedules, campaigns", _count(sim["schedules"]), _count(len(campaigns))),
        (
            "kills of replicas",
            _count(events["crashes"]),
            _count(sum(it.replica_kills for it in campaigns)),
        ),
        (
            "restarts, kills of the store",
            _count(events["store restarts"]),
            _count(sum(it.store_kills for it in campaigns)),
        ),
        (
            "replicas frozen past their leases",
            _count(events["pauses"]),
            _count(sum(it.freezes for it in campaigns)),
        ),
        ("messages", _count(sim["messages"]), _count(sum(it.messages for it in verdicts))),
        ("lost", broken, _count(sum(len(it.lost) for it in verdicts))),
        ("sent unasked or after deletion", broken, _count(sum(len(it.ghosts) for it in verdicts))),
        ("sent early", broken, _count(sum(len(it.early) for it in verdicts))),
        (
            "sent again ≤ in flight at a fault",
            f"{_count(sim['repeats'])} ≤ {_count(sim['exposed'])}",
            f"{_count(duplicates)} ≤ {_count(bound)}",
        ),
        ("worst recovery", NOT_SHOWN, f"{max(it.recovery_s for it in verdicts):.1f} s"),
        ("latest after healing", NOT_SHOWN, f"{max(it.late_s for it in verdicts):.1f} s"),
        ("deletes raced against sending", NOT_SHOWN, _count(crash.races.count)),
        ("of these sent though deleted, or not once", NOT_SHOWN, _count(len(crash.races.wrong))),
        ("due in the same second", NOT_SHOWN, _count(crash.herd.messages)),
        ("of these not sent once", NOT_SHOWN, _count(len(crash.herd.wrong))),
        ("planted bugs caught", f"{sim['caught']} of {sim['planted']}", NOT_SHOWN),
    ]


def sound(sim: Sim, crash: Results) -> bool:
    """Whether no promise was broken, and the simulation found every planted mistake."""
    simulated = not sim["failures"] and sim["caught"] == sim["planted"]
    return simulated and crash.sound


def table(sim: Sim, crash: Results) -> str:
    """The table in Markdown, as docs/guarantee.md and README quote it, and what it proves."""
    lines = [("", "simulation", "real processes"), ("---", "--:", "--:"), *rows(sim, crash)]
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    kills = _count(sum(it.replica_kills + it.store_kills for it in crash.campaigns))
    if not sound(sim, crash):
        return f"{drawn}\n\nNOT SOUND: see what `make sim` and `make crash` printed."
    return (
        f"{drawn}\n\nNone of {kills} kills lost a message, which bounds the share of kills that "
        f"may at {CONFIDENCE} in {kills}, with 95 % confidence; it does not make it zero."
    )


def _count(number: int) -> str:
    return f"{number:,}"


def main() -> int:
    """Print the table → exit code: 0 if all results exist and no promise was broken."""
    try:
        sim = msgspec.json.decode((RESULTS / "sim.json").read_bytes())
        found = (RESULTS / "crash.json").read_bytes()
    except FileNotFoundError as error:
        print(f"{error.filename} is missing: run `make sim crash` first", file=sys.stderr)
        return 1
    crash = msgspec.json.decode(found, type=Results)
    print(table(sim, crash))
    return int(not sound(sim, crash))


if __name__ == "__main__":
    sys.exit(main())
