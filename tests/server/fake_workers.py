"""Worker processes without a service, with a behaviour that a test of their parent chooses."""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Final

SPAWN: Final = multiprocessing.get_context("spawn")

Behaviour = Callable[[socket.socket], None]


def started(behaviour: Behaviour, end: socket.socket) -> BaseProcess:
    """A process with this behaviour."""
    process = SPAWN.Process(target=behaviour, args=(end,), daemon=True)
    process.start()
    return process


def obedient(end: socket.socket) -> None:
    """Becomes ready; ends when asked, or when its parent is gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    end.sendall(b'["heartbeat"]\n["ready"]\n')
    end.recv(100)


def stubborn(end: socket.socket) -> None:
    """Becomes ready, then sends nothing; only SIGKILL ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end.sendall(b'["ready"]\n')
    while True:
        signal.pause()


def killed(_: socket.socket) -> None:
    """Killed before it is ready, as by the out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut_off(end: socket.socket) -> None:
    """Killed in the middle of a message."""
    end.sendall(b'["rea')
    os.kill(os.getpid(), signal.SIGKILL)


def crashed(_: socket.socket) -> None:
    """Exits with an error, without a reason."""
    sys.exit(3)


def refused(end: socket.socket) -> None:
    """Refuses to start because of the data."""
    end.sendall(b'["start_refused", "the data are of a newer version"]\n')
    sys.exit(1)


def wrong_settings(end: socket.socket) -> None:
    """Refuses to start because of a setting."""
    end.sendall(b'["wrong_settings", "set API_TOKEN"]\n')
    sys.exit(1)
