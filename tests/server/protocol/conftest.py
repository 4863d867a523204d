"""The API of tests/api, here too."""

from tests.api.conftest import api

__all__ = ["api"]
