"""Addresses to connect to for a server on this machine."""

import pytest

from scheduler_api.server.address import listens_everywhere, reachable_host


@pytest.mark.parametrize(
    ("host", "expected"),
    [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")],
)
def test_reachable_host_replaces_the_wildcard_address(host: str, expected: str) -> None:
    assert reachable_host(host) == expected
    assert listens_everywhere(host) is (host != expected)
