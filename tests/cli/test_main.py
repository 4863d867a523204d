"""The command: what it accepts, what it says, how it exits."""

import http.client
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result

from scheduler_api import __version__, settings
from scheduler_api.cli.main import main
from scheduler_api.cli.serve import allow_receiver

COMMAND = [sys.executable, "-m", "scheduler_api"]


def run(*arguments: str, **environ: str) -> Result:
    return CliRunner(env=environ).invoke(main, arguments, prog_name="scheduler-api")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No .env and no variable of the developer's machine."""
    monkeypatch.chdir(tmp_path)
    for it in settings.describe():
        monkeypatch.delenv(it.name, raising=False)


@contextmanager
def server(status: int, host: str = "127.0.0.1") -> Iterator[int]:
    """Answers /health/ready with status; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/health/ready" else 404)
            self.end_headers()
            self.wfile.write(b"told")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    with HTTPServer((host, 0), Handler) as listening:
        thread = Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        yield listening.server_port
        listening.shutdown()
        thread.join()


def test_the_version_is_told_by_a_real_process() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"scheduler-api {__version__}\n"


def test_the_version_is_told_without_loading_heavy_modules() -> None:
    heavy = {"aiohttp", "asyncio", "redis", "starlette", "structlog", "uvicorn"}
    script = f"import sys, scheduler_api.cli.main; print({heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_the_version_command_names_python_too() -> None:
    assert run("version").output.startswith(f"scheduler-api {__version__} (Python 3.")


def test_the_help_of_serve_names_every_setting_with_its_default() -> None:
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


def test_options_arrive_under_the_names_of_the_variables() -> None:
    given = flags_of("--port", "9", "--host", "::1", "--data-dir", "/d", "--listen", "8001")
    assert given == {"API_PORT": "9", "API_HOST": "::1", "DATA_DIR": "/d", "listen": 8001}
    assert flags_of("--api-port", "7") == {"API_PORT": "7"}


@pytest.mark.parametrize("port", ["0", "65536", "x"])
def test_a_receiver_needs_a_real_port(port: str) -> None:
    done = run("serve", "--listen", port)
    assert done.exit_code == 2
    assert "Invalid value for '--listen'" in done.stderr


@pytest.mark.parametrize("arguments", [("listen",), ("healthcheck",)])
def test_a_wrong_setting_is_one_line_on_stderr_and_exit_2(arguments: tuple[str, ...]) -> None:
    done = run(*arguments, API_PORT="x\ny")
    assert done.exit_code == 2
    assert done.stdout == ""
    wanted = "Error: API_PORT is 'x\\ny': must be a whole number from 0 to 65535\n"
    assert done.stderr == wanted


def test_listening_to_a_taken_port_is_one_line_that_names_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("listen", "--port", str(port))
    assert done.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listen_prints_what_arrives_and_stops_on_a_signal(number: signal.Signals) -> None:
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


@pytest.mark.parametrize(("status", "code"), [(200, 0), (503, 1)])
def test_the_health_check_exits_by_the_answer_and_prints_it(status: int, code: int) -> None:
    with server(status) as port:
        done = run("healthcheck", API_PORT=str(port), http_proxy="http://127.0.0.1:9")
    assert (done.exit_code, done.stdout) == (code, f"{status} told\n")


def test_a_health_check_for_liveness_asks_another_path() -> None:
    with server(200) as port:  # it answers /health/ready alone
        done = run("healthcheck", "--live", API_PORT=str(port))
    assert done.exit_code == 1
    assert done.stdout.startswith("404")


def test_the_health_check_dials_a_concrete_address() -> None:
    with server(200, "127.0.0.2") as port:
        assert run("healthcheck", API_PORT=str(port)).exit_code == 1
        assert run("healthcheck", API_PORT=str(port), API_HOST="127.0.0.2").exit_code == 0


def test_the_health_check_says_that_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    done = run("healthcheck", API_PORT=str(port))
    assert done.exit_code == 1
    assert "Error: no response: " in done.stderr


def test_the_health_check_says_that_the_answer_is_not_http() -> None:
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


def test_serve_with_a_wrong_setting_is_one_line_and_exit_2() -> None:
    done = run("serve", "--lease", "0s")
    assert done.exit_code == 2
    assert done.stderr == "Error: LEASE is '0s': must be a duration from 1s to 1h\n"


def test_a_receiver_opens_its_own_port_and_nothing_else() -> None:
    rules = allow_receiver(settings.load({"EGRESS_ALLOW": "10.0.0.1"}, {}, None), 8001).egress_allow
    assert rules.refusal("127.0.0.1", 8001, "127.0.0.1") is None
    assert rules.refusal("10.0.0.1", 80, "10.0.0.1") is None
    assert rules.refusal("127.0.0.1", 8000, "127.0.0.1")
    assert rules.refusal("127.0.0.2", 8001, "127.0.0.2")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        return int(closed.getsockname()[1])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://:hidden@x?family=0", "unknown option after ?"),
        ("redis://:hidden@x/prod", "a database number"),
        ("redis+cluster://:hidden@x", "must be redis://HOST, rediss://HOST or unix:///PATH"),
        ("hidden", "must be one of redis://HOST"),
    ],
)
def test_an_address_of_the_original_that_cannot_be_is_one_line_and_exit_2(
    url: str, told: str
) -> None:
    done = run("import", "--from-original", url)
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: --from-original is invalid: ")
    assert told in done.stderr
    assert "hidden" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_with_a_taken_port_for_its_receiver_is_one_line_and_exit_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND, "serve", "--port", "0", "--listen", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert port in done.stderr
    assert done.stderr.count("\n") == 1


def test_serve_at_a_taken_port_is_one_line_that_names_the_setting_and_exit_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: cannot listen on 127.0.0.1:{port} (")
    assert done.stderr.endswith("): set API_HOST or API_PORT\n")
    assert done.stderr.count("\n") == 1


def test_serve_with_a_receiver_is_for_one_process() -> None:
    done = run("serve", "--listen", "8001", "--workers", "2")
    assert done.exit_code == 2
    assert done.stderr == "Error: --listen works with one process only: leave WORKERS at 1\n"


def wait_until_ready(process: "subprocess.Popen[bytes]", port: str) -> None:
    """Until the server takes traffic; a server that ended is a failure at once."""
    deadline = time.monotonic() + 20
    while run("healthcheck", API_PORT=port).exit_code:
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline, "not ready in 20 s"
        time.sleep(0.05)


def test_serve_takes_traffic_until_it_is_told_to_stop() -> None:
    port, receiver = str(free_port()), str(free_port())
    command = [*COMMAND, "serve", "--host", "127.0.0.1", "--port", port, "--listen", receiver]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        try:
            wait_until_ready(process, port)
            process.send_signal(signal.SIGTERM)
            told = process.communicate(timeout=20)[0].decode()
        finally:
            process.kill()
    assert process.returncode == 0, told
    assert f"http://127.0.0.1:{port}" in told
    assert f"http://127.0.0.1:{receiver}" in told
