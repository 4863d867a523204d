"""The group of commands: version, invalid settings, start-up time."""

import subprocess
import sys

import pytest

from scheduler_api import __version__
from tests.cli.commands import COMMAND, run


def test_version_option_prints_the_version() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"scheduler-api {__version__}\n"


def test_main_is_imported_without_heavy_modules() -> None:
    heavy = {"aiohttp", "asyncio", "redis", "starlette", "structlog", "uvicorn"}
    script = f"import sys, scheduler_api.cli.main; print({heavy} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_version_command_prints_the_python_version_too() -> None:
    assert run("version").output.startswith(f"scheduler-api {__version__} (Python 3.")


@pytest.mark.parametrize("arguments", [("listen",), ("healthcheck",)])
def test_command_with_an_invalid_setting_prints_one_line_and_exits_2(
    arguments: tuple[str, ...],
) -> None:
    done = run(*arguments, API_PORT="x\ny")
    assert done.exit_code == 2
    assert done.stdout == ""
    wanted = "Error: API_PORT is 'x\\ny': must be a whole number from 0 to 65535\n"
    assert done.stderr == wanted
