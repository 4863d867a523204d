"""A low limit of open files and many hosts: no message is late, none counts as crashed."""

import sys
from pathlib import Path

from tests.support.receiver import Receiver
from tests.support.waiting import wait_until
from tests.system.processes import serving

HOSTS = 150
LIMIT = 112  # descriptors: fewer than the hosts
SERVE = (
    sys.executable,
    "-c",
    f"""
import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
from scheduler_api.cli.main import main

ask = socket.getaddrinfo

def getaddrinfo(host, *args, **more):
    local = isinstance(host, bytes) and host.endswith(b".example")
    return ask(b"127.0.0.1" if local else host, *args, **more)

socket.getaddrinfo = getaddrinfo
main(["serve"])
""",
)


async def test_service_delivers_to_more_hosts_than_open_files(
    tmp_path: Path, receiver: Receiver
) -> None:
    port = receiver.url.split(":")[2].partition("/")[0]
    async with serving(tmp_path, SERVE) as server:
        for number in range(HOSTS):
            url = f"http://host{number}.example:{port}/"
            await server.create(id=f"m{number}", webhookUrl=url, delay="2s")
        healthy = [True]

        async def all_arrived() -> bool:
            healthy.append((await server.ask("GET", "/health/live"))[0] == 200)
            return len(set(receiver.ids())) == HOSTS

        await wait_until("all messages", all_arrived, 20)
        for number in range(HOSTS):
            await server.reach(f"m{number}", "delivered")
            _, message, _ = await server.ask("GET", f"/messages/m{number}")
            assert "died with it" not in message["why"]
            assert message["attempts"][0]["latenessMs"] < 5_000
        assert all(healthy)
        assert not server.events("sockets_exhausted")
