"""Fixtures of the command line's tests."""

from pathlib import Path

import pytest

from scheduler_api import settings


@pytest.fixture(autouse=True)
def _clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the .env and the variables of the developer's machine."""
    monkeypatch.chdir(tmp_path)
    for it in settings.describe():
        monkeypatch.delenv(it.name, raising=False)
