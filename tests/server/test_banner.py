"""The banner: addresses, the token, and a call to paste."""

import json
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scheduler_api.server.banner import address, banner
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings

SHELLS = [shell for shell in ("bash", "zsh", "dash") if shutil.which(shell)]
AWKWARD = "to$ken'with\"odd`!\\ characters"


def call_in(text: str) -> str:
    return text[text.index("curl ") :]


def words(call: str, shell: str, **environ: str) -> list[str]:
    """The arguments that the shell would pass to curl."""
    script = f"curl() {{ printf '%s\\0' \"$@\"; }}\n{call}"
    done = subprocess.run([shell, "-c", script], capture_output=True, check=True, env=environ)
    return done.stdout.decode().split("\0")[:-1]


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://localhost:8000"),
        ("::", "http://localhost:8000"),
        ("192.0.2.1", "http://192.0.2.1:8000"),
        ("2001:db8::1", "http://[2001:db8::1]:8000"),
    ],
)
def test_address_can_be_connected_to(host: str, url: str) -> None:
    assert address(Settings(api_host=host)) == url
    assert f"{url}/docs" in banner(Settings(api_host=host), Token("t", created=True))


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("value", ["abc-_123", AWKWARD])
def test_banner_has_a_call_to_paste_that_sends_to_the_receiver(shell: str, value: str) -> None:
    text = banner(Settings(api_token=value), Token(value, created=False), listen=8001)
    url, *rest = words(call_in(text), shell)
    assert url == "http://localhost:8000/messages"
    assert rest[:4] == [
        "-H",
        f"Authorization: Bearer {value}",
        "-H",
        "Content-Type: application/json",
    ]
    body = json.loads(rest[5])
    assert body["delay"] == "5s"
    assert urlsplit(body["webhookUrl"])[:2] == ("http", "127.0.0.1:8001")
    assert "http://127.0.0.1:8001 " in text


@pytest.mark.parametrize("shell", SHELLS)
def test_banner_does_not_show_the_token_of_the_environment(shell: str) -> None:
    text = banner(Settings(api_token="hidden"), Token("hidden", created=False))
    assert "hidden" not in text
    assert "set by API_TOKEN" in text
    call = words(call_in(text), shell, API_TOKEN="hidden")
    assert call[2] == "Authorization: Bearer hidden"
    assert "127.0.0.1" not in text


@pytest.mark.parametrize("shell", SHELLS)
def test_banner_reads_a_saved_token_from_its_file(tmp_path: Path, shell: str) -> None:
    folder = tmp_path / "it's a $folder"
    folder.mkdir()
    (folder / "token").write_text("hidden\n")
    text = banner(Settings(data_dir=folder), Token("hidden", created=False))
    assert "hidden" not in text
    assert f"saved in {folder / 'token'}" in text
    call = words(call_in(text), shell, PATH="/usr/bin:/bin")
    assert call[2] == "Authorization: Bearer hidden"


def test_banner_shows_a_new_token_and_its_file(tmp_path: Path) -> None:
    text = banner(Settings(data_dir=tmp_path), Token("brand-new", created=True))
    assert f"brand-new   (saved in {tmp_path / 'token'})" in text


def test_banner_has_no_line_that_ends_in_a_space() -> None:
    text = banner(Settings(), Token("t", created=True), listen=1)
    assert all(line == line.rstrip() for line in text.splitlines())
