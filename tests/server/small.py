"""Worker processes without a service, which behave as a test of their parent wants."""

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
    """A process that behaves so."""
    process = SPAWN.Process(target=behaviour, args=(end,), daemon=True)
    process.start()
    return process


def obedient(end: socket.socket) -> None:
    """Ready; ends when it is asked to, or its parent is gone."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    end.sendall(b'["heartbeat"]\n["ready"]\n')
    end.recv(100)


def stubborn(end: socket.socket) -> None:
    """Ready, silent from then on; ends for nothing but SIGKILL."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end.sendall(b'["ready"]\n')
    while True:
        signal.pause()


def killed(_: socket.socket) -> None:
    """Killed before it is ready, as by the kernel that has no memory left."""
    os.kill(os.getpid(), signal.SIGKILL)


def cut_off(end: socket.socket) -> None:
    """Killed in the middle of a word."""
    end.sendall(b'["rea')
    os.kill(os.getpid(), signal.SIGKILL)


def crashed(_: socket.socket) -> None:
    """Ended by an error of its own."""
    sys.exit(3)


def refused(end: socket.socket) -> None:
    """Refused by what it found."""
    end.sendall(b'["start_refused", "the data are of a newer version"]\n')
    sys.exit(1)


def wrong_settings(end: socket.socket) -> None:
    """Refused because of a setting."""
    end.sendall(b'["wrong_settings", "set API_TOKEN"]\n')
    sys.exit(1)
