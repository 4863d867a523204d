"""Names and addresses for the tests of requests."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

Names = Callable[[dict[str, list[str]]], None]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """Sets the addresses of names; no name server is asked."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        if host.decode() not in known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [address_info(address, port) for address in known[host.decode()]]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known.update


def address_info(address: str, port: int) -> object:
    """As getaddrinfo returns it."""
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    bare, _, zone = address.partition("%")
    if ":" in address:
        return (socket.AF_INET6, *kind, (bare, port, 0, int(zone or 0)))
    return (socket.AF_INET, *kind, (address, port))


@pytest.fixture
def unanswered() -> Iterator[str]:
    """Host and port that ignore new connections, as the backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, ExitStack() as stack:
        host, port = full.getsockname()
        for _ in range(2):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex((host, port))
        yield f"{host}:{port}"
