"""`load` and Settings: defaults, the address of the store, combinations, and hidden secrets."""

import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from scheduler_api import settings
from scheduler_api.settings import Settings, SettingsError
from tests.settings.given import load

ROOT = Path(__file__).parents[2]
WEBHOOK_KEY = b"0123456789abcdef01234567"
WEBHOOK_SECRET = f"whsec_{base64.b64encode(WEBHOOK_KEY).decode()}"


def test_load_without_any_source_returns_the_defaults() -> None:
    assert load() == Settings()
    assert Settings().api_port == 8000
    assert Settings().request_timeout == timedelta(seconds=30)
    assert Settings().redis_address is None


def test_load_reads_every_described_default_as_the_default() -> None:
    assert load(**{it.name: it.default for it in settings.describe()}) == Settings()


def test_describe_has_each_setting_once_with_a_meaning() -> None:
    described = settings.describe()
    assert len({it.name for it in described}) == len(Settings.__struct_fields__) == len(described)
    assert all(it.meaning and it.name.isupper() for it in described)


def test_example_is_the_text_of_the_env_example_file() -> None:
    assert (ROOT / ".env.example").read_text("utf-8") == settings.example()


def test_load_of_the_env_example_file_returns_the_defaults() -> None:
    assert settings.load(environ={}, dotenv=ROOT / ".env.example") == Settings()


def test_redis_address_is_made_from_host_port_and_password() -> None:
    loaded = load(REDIS_HOST="cache", REDIS_PORT="6380", REDIS_PASSWORD="p@ss/w:rd %")
    assert loaded.redis_address == "redis://:p%40ss%2Fw%3Ard%20%25@cache:6380/0"
    assert unquote(urlsplit(loaded.redis_address).password or "") == "p@ss/w:rd %"


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/0"),
        ({"REDIS_HOST": "fd00::1"}, "redis://[fd00::1]:6379/0"),
        ({"REDIS_URL": "redis://a", "REDIS_HOST": "b"}, "redis://a"),
        ({"REDIS_URL": "redis://a", "REDIS_PASSWORD": "p"}, "redis://a"),
        ({}, None),
    ],
)
def test_redis_address_prefers_the_url_to_the_host(
    environ: dict[str, str], address: str | None
) -> None:
    assert load(**environ).redis_address == address


@pytest.mark.parametrize(
    ("flags", "environ", "dotenv", "address"),
    [
        ({"REDIS_HOST": "f"}, {}, "REDIS_URL=redis://d", "redis://f:6379/0"),
        ({"REDIS_HOST": "f"}, {"REDIS_URL": "redis://e"}, "", "redis://f:6379/0"),
        ({}, {"REDIS_HOST": "e", "REDIS_PORT": "7"}, "REDIS_URL=redis://d", "redis://e:7/0"),
        ({"REDIS_URL": "redis://f"}, {"REDIS_HOST": "e"}, "REDIS_HOST=d", "redis://f"),
        ({}, {"REDIS_HOST": "e"}, "REDIS_HOST=d\nREDIS_URL=redis://d", "redis://e:6379/0"),
        ({"REDIS_HOST": " "}, {}, "REDIS_URL=redis://d", "redis://d"),
        ({"REDIS_HOST": "f"}, {"REDIS_PASSWORD": "p"}, "REDIS_URL=nonsense", "redis://:p@f:6379/0"),
    ],
)
def test_redis_address_is_that_of_the_earliest_source(
    flags: dict[str, str], environ: dict[str, str], dotenv: str, address: str, tmp_path: Path
) -> None:
    """Whether that source names it by REDIS_URL or by REDIS_HOST."""
    (tmp_path / ".env").write_text(dotenv)
    assert settings.load(flags, environ, tmp_path / ".env").redis_address == address


@pytest.mark.parametrize("used", [{}, {"REDIS_URL": "redis://a"}])
def test_load_does_not_check_an_unused_redis_port(used: dict[str, str]) -> None:
    """Kubernetes sets it beside a Service named redis."""
    loaded = load(REDIS_PORT="tcp://10.0.0.7:6379", **used)
    assert loaded.redis_address == used.get("REDIS_URL")


@pytest.mark.parametrize(
    ("environ", "quoted"),
    [
        (
            {"API_TOKEN": '"abc"', "REDIS_PASSWORD": "'p'", "REDIS_HOST": "h"},
            ["API_TOKEN", "REDIS_PASSWORD"],
        ),
        ({"DATA_DIR": '"./data"'}, ["DATA_DIR"]),
        ({"API_TOKEN": "a\"b'", "REDIS_HOST": "\"h'"}, []),
        ({"API_TOKEN": '"'}, []),
        ({}, []),
    ],
)
def test_quoted_variables_names_the_values_in_quotes(
    environ: dict[str, str], quoted: list[str]
) -> None:
    """Docker's --env-file takes the quotes for a part of the value."""
    assert load(**environ).quoted_variables() == quoted


def test_load_refuses_replica_durability_on_a_cluster() -> None:
    with pytest.raises(
        SettingsError, match="DURABILITY is 'replica': not supported on Redis Cluster"
    ):
        load(DURABILITY="replica", REDIS_URL="redis+cluster://a")


def test_load_refuses_a_redis_password_without_a_host() -> None:
    with pytest.raises(SettingsError, match="REDIS_PASSWORD is set without REDIS_HOST"):
        load(REDIS_PASSWORD="p")


@pytest.mark.parametrize("show", [repr, str, Settings.redacted, Settings.__rich_repr__])
def test_settings_show_no_secret_in_any_text_form(show: Callable[[Settings], object]) -> None:
    loaded = load(
        API_TOKEN="hidden1",
        REDIS_URL="redis://:hidden2@x",
        REDIS_PASSWORD="hidden3",
        SIGNING_SECRET=WEBHOOK_SECRET,
    )
    text = str(show(loaded))
    assert "hidden" not in text
    assert WEBHOOK_KEY.decode() not in text
    assert text.count("***") == 4
