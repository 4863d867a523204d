"""What tests of whole processes may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.external_store import ExternalStore


@pytest.fixture
async def external_store(tmp_path: Path) -> AsyncIterator[ExternalStore]:
    """One for this test, on loopback, with a password."""
    one = ExternalStore(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        await one.stop()
