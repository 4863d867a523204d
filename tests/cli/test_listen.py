"""The command listen: what it prints, how it ends."""

import http.client
import signal
import socket
import subprocess

import pytest

from tests.cli.commands import COMMAND, run


def test_listen_on_a_used_port_prints_one_line_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("listen", "--port", str(port))
    assert done.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listen_prints_requests_and_stops_on_a_signal(number: signal.Signals) -> None:
    command = [*COMMAND, "listen", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        address = process.stdout.readline().split()[2]
        connection = http.client.HTTPConnection(address.removeprefix("http://"))
        connection.request("POST", "/hello", b"hi")
        assert connection.getresponse().read() == b'{"received": true}'
        connection.close()
        assert process.stdout.readline().endswith("POST /hello  hi\n")
        process.send_signal(number)
        assert process.wait(10) == 0
