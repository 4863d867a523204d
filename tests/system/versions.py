"""Other versions of the package: copies of this one, with the changes of a later version."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import scheduler_api
from scheduler_api.store.keys import SCHEMA

Edits = Mapping[str, Sequence[tuple[str, str]]]  # file → text, and its replacement

ADDED: Final = "of a later version"  # the content of fields that this version does not know

# Every hash, or each of its fields, has one more part; this version can read all of them.
COMPATIBLE: Final[Edits] = {
    "__init__.py": [('"2.0.0"', '"2.1.0"')],
    "domain/message.py": [
        (
            "    given_url: str | None = field(",
            "    added: str | None = None; given_url: str | None = field(",
        )
    ],
    "domain/accept.py": [("spec = Spec(", f"spec = Spec(added='{ADDED}', ")],
    "store/codec/progress.py": [
        (
            "    location: str | None = None\n\n\n_encode_log",
            f"    location: str | None = None; added: str = '{ADDED}'\n\n\n_encode_log",
        ),
        (
            "        rest.pop()\n    return (number, to_ms(started_at), *rest)",
            f"        pass\n    return (number, to_ms(started_at), *rest, '{ADDED}')",
        ),
    ],
    "store/lua/audit/check_schema.lua": [
        (
            "local schema, partitions =",
            f"call('HSET', META, 'added', '{ADDED}'); local schema, partitions =",
        )
    ],
    "store/lua/queue/claim.lua": [
        ("(permit == 1 and ' 1' or ' 0')", "(permit == 1 and ' 1' or ' 0') .. ' added'")
    ],
}

# This version cannot read what it writes.
INCOMPATIBLE: Final[Edits] = {
    "__init__.py": [('"2.0.0"', '"3.0.0"')],
    "store/keys.py": [(f"SCHEMA: Final = {SCHEMA}", f"SCHEMA: Final = {SCHEMA + 1}")],
}


def install(folder: Path, edits: Edits) -> dict[str, str]:
    """Install a version into its own directory → the environment in which it runs."""
    package = folder / "scheduler_api"
    ours = Path(scheduler_api.__file__).parent
    shutil.copytree(ours, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, changes in edits.items():
        file = package / name
        for ours_has, theirs_has in changes:
            text = file.read_text()
            assert text.count(ours_has) == 1, f"{name} has not one {ours_has!r}"
            file.write_text(text.replace(ours_has, theirs_has))
    # Its branches do not count for coverage.
    return {"PYTHONPATH": str(folder), "COVERAGE_PROCESS_CONFIG": ""}
