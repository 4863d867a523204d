"""Hosts of this machine that take connections and never answer: as many names as a test wants."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

BACKLOG = 4096  # connections that the system takes for a server that accepts none

Answer = Callable[[str], list[str]]


@contextmanager
def silent_port() -> Iterator[int]:
    """The system takes connections there; nobody reads what they bring."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as server:
        yield server.getsockname()[1]


def answer_names(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Let `answer` say which addresses a name has; no name server is asked."""

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in answer(host.decode())]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
