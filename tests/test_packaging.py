"""The image, the compose file, make, the locked requirements, the licence."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from scheduler_api import __version__, settings
from scheduler_api.store.embedded.server import START_TIMEOUT
from tests.lowest import lowest

yaml = pytest.importorskip("yaml", reason="comes with schemathesis")

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docs/deploy/compose.yaml").read_text("utf-8"))


def dockerfile() -> list[tuple[str, str]]:
    """Its instructions; continued lines are joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, " ".join(rest.split())) for word, _, rest in (it.partition(" ") for it in lines)]


def arguments(word: str) -> list[str]:
    return [rest for instruction, rest in dockerfile() if instruction == word]


def test_image_has_two_stages_on_glibc_and_runs_as_a_fixed_user() -> None:
    assert arguments("FROM") == ["python:3.13-slim AS build", "python:3.13-slim"]
    assert arguments("USER") == ["10001:10001"]
    assert arguments("STOPSIGNAL") == ["SIGTERM"]
    assert arguments("VOLUME") == ["/data"]
    assert "DATA_DIR=/data" in arguments("ENV")[-1]


def test_image_starts_the_command_without_a_shell_on_the_default_port() -> None:
    assert json.loads(arguments("CMD")[0]) == ["scheduler-api", "serve"]
    assert arguments("EXPOSE") == [str(settings.Settings().api_port)]
    assert json.loads(arguments("HEALTHCHECK")[0].partition("CMD ")[2]) == [
        "scheduler-api",
        "healthcheck",
        "--live",
    ]


def test_image_health_check_waits_as_long_as_a_store_may_load() -> None:
    found = re.search(r"--start-period=(\d+)m", arguments("HEALTHCHECK")[0])
    assert found
    assert int(found[1]) * 60 > START_TIMEOUT


def test_image_copies_no_ignored_file() -> None:
    kept = {it[1:] for it in (ROOT / ".dockerignore").read_text().split() if it.startswith("!")}
    copied = {name.strip("./") for it in arguments("COPY")[:3] for name in it.split()[:-1]}
    assert copied == kept
    assert all((ROOT / name).exists() for name in kept - {"README.md"})


def test_compose_store_is_durable() -> None:
    store = COMPOSE["services"]["store"]
    assert store["image"] == "valkey/valkey:9"
    command = " ".join(store["command"])
    for option in ("appendonly yes", "appendfsync always", "maxmemory-policy noeviction"):
        assert f"--{option}" in command
    assert "store-data:/data" in store["volumes"]
    assert "healthcheck" in store


def test_compose_service_waits_drains_and_has_its_token_in_a_secret() -> None:
    service = COMPOSE["services"]["scheduler-api"]
    assert (ROOT / "docs/deploy" / service["build"]).resolve() == ROOT.resolve()
    assert service["init"] is True
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace > settings.Settings().shutdown_grace.total_seconds()
    assert service["depends_on"] == {"store": {"condition": "service_healthy"}}
    assert service["environment"]["API_TOKEN_FILE"] == f"/run/secrets/{service['secrets'][0]}"
    assert service["secrets"][0] in COMPOSE["secrets"]


def test_compose_environment_has_only_settings() -> None:
    known = {it.name for it in settings.describe()}
    given = COMPOSE["services"]["scheduler-api"]["environment"]
    assert {name.removesuffix("_FILE") for name in given} <= known
    without_secret = {name: text for name, text in given.items() if not name.endswith("_FILE")}
    assert settings.load(environ=without_secret, dotenv=None).redis_address == given["REDIS_URL"]


def test_make_without_a_target_prints_its_targets() -> None:
    done = subprocess.run(["make", "-C", ROOT], capture_output=True, text=True, check=True)
    targets = set(re.findall(r"^make (\w+)", done.stdout, re.MULTILINE))
    assert targets == {
        *("help", "run", "test", "faults", "engines", "sim", "crash", "rolling", "guarantee"),
        *("campaigns", "lowest", "check", "format", "constraints", "bench", "image"),
    }


def locked(name: str) -> dict[str, list[Version]]:
    """The versions of each library in a file of requirements/; several only with markers."""
    text = (ROOT / "requirements" / name).read_text("utf-8")
    assert "://" not in text
    assert "index" not in text
    found: dict[str, list[Version]] = {}
    for entry in re.split(r"\n(?=\S)", re.sub(r"(?m)^ *#.*\n", "", text).strip()):
        pin, *hashes = entry.split(" \\\n")
        needed = Requirement(pin)
        [only] = needed.specifier
        assert only.operator == "=="
        assert hashes, f"{pin} has no hash"
        assert all(re.fullmatch(r" *--hash=sha256:[0-9a-f]{64}", it) for it in hashes)
        found.setdefault(needed.name, []).append(Version(only.version))
    return found


def test_locked_versions_are_allowed_by_the_project() -> None:
    project = PROJECT["project"]
    wanted = {
        "run.txt": project["dependencies"],
        "dev.txt": [*project["dependencies"], *project["optional-dependencies"]["dev"]],
        "build.txt": PROJECT["build-system"]["requires"],
    }
    for name, lines in wanted.items():
        versions = locked(name)
        for needed in map(Requirement, lines):
            [version] = versions[needed.name.lower()]
            assert needed.specifier.contains(version), f"{needed}: run `make constraints`"


def test_tests_use_the_locked_versions_of_the_image() -> None:
    run, build, dev = locked("run.txt"), locked("build.txt"), locked("dev.txt")
    assert dev | run | build == dev


def test_image_installs_only_files_with_a_locked_hash() -> None:
    installs = [it for rest in arguments("RUN") for it in rest.split("&& ") if "pip install" in it]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes -r requirements/" in command or "--no-index" in command


def test_lowest_prints_the_lower_bound_of_each_library() -> None:
    bounds = dict(line.split("==") for line in lowest())
    needed = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
    assert list(bounds) == [it.name for it in needed]
    assert all(it.specifier.contains(bounds[it.name]) for it in needed)


def test_make_run_starts_the_server_with_a_receiver() -> None:
    done = subprocess.run(["make", "-nC", ROOT, "run"], capture_output=True, text=True, check=True)
    assert ".venv/bin/scheduler-api serve --listen 8001" in done.stdout


def test_ci_script_is_executable_and_parses() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", script], check=True)


def test_project_names_the_command_and_the_version() -> None:
    assert PROJECT["project"]["scripts"] == {"scheduler-api": "scheduler_api.cli.main:main"}
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "src/scheduler_api/__init__.py"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", __version__)


def test_licence_and_changelog_exist() -> None:
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text("utf-8")
