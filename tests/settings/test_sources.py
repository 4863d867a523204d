"""Where the texts of settings come from, and which source takes precedence."""

from pathlib import Path

import pytest

from scheduler_api import settings
from scheduler_api.settings import Settings, SettingsError
from tests.settings.given import load


def test_load_prefers_flags_to_environment_to_dotenv(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("API_PORT=1\nWORKERS=2\nMAX_IN_FLIGHT=3\nLOG_LEVEL\n")
    loaded = settings.load({"API_PORT": "7"}, {"API_PORT": "8", "WORKERS": "9"}, file)
    assert (loaded.api_port, loaded.workers, loaded.max_in_flight) == (7, 9, 3)
    assert loaded.log_level == "INFO"


def test_load_reads_the_environment_of_the_process_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_PORT", "8123")
    assert settings.load(dotenv=None).api_port == 8123


def test_load_does_not_interpolate_a_dollar_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN='a${HOME}b'")
    assert settings.load(environ={}, dotenv=tmp_path / ".env").api_token == "a${HOME}b"


def test_load_skips_a_byte_order_mark_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN=first\nAPI_PORT=8123\n", "utf-8-sig")
    found = settings.load(environ={}, dotenv=tmp_path / ".env")
    assert (found.api_token, found.api_port) == ("first", 8123)


def test_load_skips_a_byte_order_mark_in_a_name_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n", "utf-8-sig")
    assert load(API_TOKEN_FILE=str(tmp_path / "token")).api_token == "secret"


def test_load_accepts_a_missing_dotenv(tmp_path: Path) -> None:
    assert settings.load(environ={}, dotenv=tmp_path / ".env") == Settings()


def test_load_refuses_a_dotenv_that_is_not_text_and_names_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"API_PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        settings.load(environ={}, dotenv=tmp_path / ".env")


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_load_ignores_an_empty_text(empty: str) -> None:
    assert settings.load({"API_PORT": empty}, {"API_PORT": "9"}, None).api_port == 9
    assert load(API_TOKEN=empty, REDIS_HOST=empty, LEASE=empty) == Settings()


def test_load_ignores_unknown_variables() -> None:
    assert load(API_PROT="1") == Settings()


def test_load_strips_the_final_newline_of_a_name_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("s3cret\r\n")
    assert load(API_TOKEN_FILE=str(tmp_path / "t")).api_token == "s3cret"


def test_load_ignores_an_empty_name_file(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("\n")
    assert load(API_TOKEN_FILE=str(tmp_path / "t")).api_token == ""


def test_load_refuses_a_name_together_with_its_name_file() -> None:
    with pytest.raises(SettingsError, match="API_TOKEN and API_TOKEN_FILE are both set"):
        load(API_TOKEN="a", API_TOKEN_FILE="b")


def test_load_prefers_a_flag_to_a_name_file_of_the_environment() -> None:
    assert settings.load({"API_TOKEN": "a"}, {"API_TOKEN_FILE": "/nowhere"}, None).api_token == "a"


def test_load_names_the_path_of_a_missing_name_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"API_TOKEN_FILE is '.*gone'.*No such file"):
        load(API_TOKEN_FILE=str(tmp_path / "gone"))


def test_load_does_not_quote_a_name_file_that_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xffhidden")
    with pytest.raises(SettingsError, match="not UTF-8 text") as caught:
        load(API_TOKEN_FILE=str(tmp_path / "t"))
    assert "hidden" not in str(caught.value)


def test_load_strips_quotes_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN=\"abc\"\nREDIS_HOST='h'\n")
    loaded = settings.load(environ={}, dotenv=tmp_path / ".env")
    assert (loaded.api_token, loaded.quoted_variables()) == ("abc", [])
