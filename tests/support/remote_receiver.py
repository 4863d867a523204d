"""A receiver in its own network namespace, as on another machine: its network can be cut.

It has its own network, and so must the test: what is made here must not touch the machine's.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from tests.support.waiting import wait_until

HERE: Final = "192.0.2.1"  # TEST-NET-1, used by no network
THERE: Final = "192.0.2.2"
PORT: Final = 8080

# Reports each request. Answers it with 200, but not the first one to /silent.
PROGRAM: Final = f"""
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

silent = {{"/silent"}}

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        print(self.path, flush=True)
        if self.path in silent:
            silent.discard(self.path)
            threading.Event().wait()
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

sys.stdin.readline()
server = ThreadingHTTPServer(("{THERE}", {PORT}), Handler)
print("listening", flush=True)
server.serve_forever()
"""


class Peer:
    """The receiver at the other end of the network."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.url = f"http://{THERE}:{PORT}"
        self._process = process

    async def heard(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout
        async with asyncio.timeout(20):
            return (await self._process.stdout.readline()).decode().strip()

    @property
    def apart(self) -> bool:
        """Whether its network namespace exists."""
        return _network(self._process.pid) != _network("self")

    def lay(self) -> None:
        """Connect it, and wait until it answers."""
        there = str(self._process.pid)
        _ip("link", "add", "near", "type", "veth", "peer", "name", "far", "netns", there)
        _ip("address", "add", f"{HERE}/30", "dev", "near")
        _ip("link", "set", "near", "up")
        self._ip_there("link", "set", "far", "up")
        self.mend()
        assert self._process.stdin
        self._process.stdin.write(b"go\n")

    def cut(self) -> None:
        """Drop everything from now on, without FIN, RST or ICMP."""
        self._ip_there("address", "delete", f"{THERE}/30", "dev", "far")

    def mend(self) -> None:
        """End the cut."""
        self._ip_there("address", "add", f"{THERE}/30", "dev", "far")

    def _ip_there(self, *words: str) -> None:
        enter = ("nsenter", "--target", str(self._process.pid), "--net")
        subprocess.run((*enter, "ip", *words), check=True)


@asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """Run one, and remove it afterwards."""
    machines = os.environ.get(
        "MACHINE_NETWORK"
    )  # set by `make faults`, which then leaves that network
    assert machines not in (None, _network("self")), "Only in a separate network: make faults"
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--net", sys.executable, "-c", PROGRAM),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        one = Peer(process)
        await wait_until("a separate network", lambda: one.apart)
        one.lay()
        assert await one.heard() == "listening"
        yield one
        _ip("link", "delete", "near")
    finally:
        process.kill()
        await process.wait()


def _network(pid: int | str) -> str:
    return os.readlink(f"/proc/{pid}/ns/net")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
