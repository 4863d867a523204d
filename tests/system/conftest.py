"""Fixtures of tests with whole processes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.external_store import ExternalStore


@pytest.fixture
async def external_store(tmp_path: Path) -> AsyncIterator[ExternalStore]:
    """A Redis for this test, on loopback, with a password."""
    one = ExternalStore(tmp_path)
    try:
        await one.start()
        yield one
    finally:
        await one.stop()
