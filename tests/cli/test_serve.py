"""The command serve: its options, its errors, its end."""

import signal
import socket
import subprocess
import time
from typing import Any

import pytest

from scheduler_api import settings
from scheduler_api.cli.main import main
from scheduler_api.cli.serve import allow_receiver
from tests.cli.commands import COMMAND, free_port, run


def test_serve_help_names_every_setting_with_its_default() -> None:
    text = run("serve", "--help", COLUMNS="200").output
    for it in settings.describe():
        assert f"--{it.name.lower().replace('_', '-')}" in text
        assert it.name in text
    assert "--port" in text
    assert "--host" in text
    assert "--listen PORT" in text
    assert "REQUEST_TIMEOUT=30s" in " ".join(text.split())


def flags_of(*arguments: str) -> dict[str, Any]:
    serve = main.commands["serve"]
    with serve.make_context("serve", list(arguments)) as context:
        return {name: value for name, value in context.params.items() if value is not None}


def test_serve_options_have_the_names_of_the_variables() -> None:
    given = flags_of("--port", "9", "--host", "::1", "--data-dir", "/d", "--listen", "8001")
    assert given == {"API_PORT": "9", "API_HOST": "::1", "DATA_DIR": "/d", "listen": 8001}
    assert flags_of("--api-port", "7") == {"API_PORT": "7"}


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_serve_refuses_an_invalid_receiver_port(port: str) -> None:
    done = run("serve", "--listen", port)
    assert done.exit_code == 2
    assert "Invalid value for '--listen'" in done.stderr


def test_serve_with_an_invalid_setting_prints_one_line_and_exits_2() -> None:
    done = run("serve", "--lease", "0s")
    assert done.exit_code == 2
    assert done.stderr == "Error: LEASE is '0s': must be a duration from 1s to 1h\n"


def test_allow_receiver_allows_its_port_and_no_other() -> None:
    rules = allow_receiver(settings.load({"EGRESS_ALLOW": "10.0.0.1"}, {}, None), 8001).egress_allow
    assert rules.refusal("127.0.0.1", 8001, "127.0.0.1") is None
    assert rules.refusal("10.0.0.1", 80, "10.0.0.1") is None
    assert rules.refusal("127.0.0.1", 8000, "127.0.0.1")
    assert rules.refusal("127.0.0.2", 8001, "127.0.0.2")


def test_serve_with_a_used_receiver_port_prints_one_line_and_exits_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND, "serve", "--port", "0", "--listen", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_on_a_used_port_names_the_setting_and_exits_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port} (")
    assert done.stderr.endswith("): set API_HOST or API_PORT\n")
    assert done.stderr.count("\n") == 1


def test_serve_refuses_a_receiver_with_several_workers() -> None:
    done = run("serve", "--listen", "8001", "--workers", "2")
    assert done.exit_code == 2
    assert done.stderr == "Error: --listen works with one process only: leave WORKERS at 1\n"


def wait_until_ready(process: "subprocess.Popen[bytes]", port: str) -> None:
    """Wait until the server accepts requests; fail at once if it ended."""
    deadline = time.monotonic() + 20
    while run("healthcheck", API_PORT=port).exit_code:
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, "not ready in 20 s"
        time.sleep(0.05)


def test_serve_runs_until_a_signal() -> None:
    port, receiver = str(free_port()), str(free_port())
    command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", port, "--listen", receiver]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            wait_until_ready(process, port)
            process.send_signal(signal.SIGTERM)
            output = process.communicate(timeout=20)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 0, output
    assert f"http://127.0.0.1:{port}" in output
    assert f"http://127.0.0.1:{receiver}" in output
