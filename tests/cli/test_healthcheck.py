"""The command healthcheck: its request, its exit code, its errors."""

import socket
from threading import Thread

import pytest

from tests.cli.commands import run, server


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_healthcheck_prints_the_response_and_exits_by_its_status(status: int, code: int) -> None:
    with server(status) as port:
        done = run("healthcheck", API_PORT=str(port), http_proxy="http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (code, f"{status} health\n")


def test_healthcheck_live_requests_another_path() -> None:
    with server(200) as port:  # it answers /health/ready alone
        done = run("healthcheck", "--live", API_PORT=str(port))
    assert done.exit_code == 1
    assert done.stdout.startswith("404")


def test_healthcheck_connects_to_the_address_that_the_server_listens_on() -> None:
    with server(200, "127.0.0.2") as port:
        assert run("healthcheck", API_PORT=str(port)).exit_code == 1
        assert run("healthcheck", API_PORT=str(port), API_HOST="127.0.0.2").exit_code == 0


def test_healthcheck_names_the_address_that_does_not_respond() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = run("healthcheck", API_PORT=str(port))
    assert done.exit_code == 1
    assert done.stderr == f"Error: no response from 127.0.0.1 port {port}: Connection refused\n"


def test_healthcheck_reports_a_response_that_is_not_http() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            with listening.accept()[0] as peer:
                peer.recv(1000)
                peer.sendall(b"SSH-2.0-x\r\n")

        thread = Thread(target=answer)
        thread.start()
        done = run("healthcheck", API_PORT=str(listening.getsockname()[1]))
        thread.join()
    assert done.exit_code == 1
    assert "not HTTP" in done.stderr
