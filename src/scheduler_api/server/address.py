"""Addresses of this machine: where a server that listens everywhere can be reached."""

from typing import Final

LOOPBACK: Final = "127.0.0.1"
_REACHABLE: Final = {"0.0.0.0": LOOPBACK, "::": "::1"}  # address listened on → one to connect to


def listens_everywhere(host: str) -> bool:
    """Whether it is the wildcard address, which cannot be connected to."""
    return host in _REACHABLE


def reachable_host(host: str) -> str:
    """The host to connect to, from this machine, for a server that listens on `host`."""
    return _REACHABLE.get(host, host)
