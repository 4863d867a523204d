"""Runs commands in this process, and servers that they can ask."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from click.testing import CliRunner, Result

from scheduler_api.cli.main import main

COMMAND = [sys.executable, "-m", "scheduler_api"]


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(main, arguments, prog_name="scheduler-api")


@contextmanager
def server(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Answers /health/ready with status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b"health")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer((host, 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])
