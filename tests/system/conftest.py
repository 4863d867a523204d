"""What tests of whole processes may ask for."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.outside import Outside


@pytest.fixture
async def outside(tmp_path: Path) -> AsyncIterator[Outside]:
    """One for this test, on loopback, with a password."""
    one = Outside(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        await one.stop()
