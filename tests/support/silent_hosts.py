"""Hosts that accept connections and never answer, under any number of names."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

BACKLOG = 4096  # connections that the system accepts for a server that does not

Answer = Callable[[str], list[str]]


@contextmanager
def silent_port() -> Iterator[int]:
    """A port on which the system accepts connections, and nobody reads them."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as server:
        yield server.getsockname()[1]


def answer_names(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> None:
    """Let `answer` resolve every name, instead of a name server."""

    def getaddrinfo(host: bytes, port: int, *_: object, **__: object) -> list[object]:
        kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
        return [(*kind, (address, port)) for address in answer(host.decode())]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
