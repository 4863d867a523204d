"""Valid values of EGRESS_PROXY and EGRESS_CA_FILE."""

from pathlib import Path

import pytest
import trustme

from scheduler_api.settings import SettingsError
from tests.settings.given import load


@pytest.mark.parametrize(
    "text",
    [
        "http://proxy:3128",
        "http://proxy",
        "http://user:p%40ss@proxy.example:80/",
        "http://[::1]:3128",
        "http://10.0.0.1:65535",
    ],
)
def test_load_reads_the_url_of_an_http_proxy(text: str) -> None:
    found = load(EGRESS_PROXY=f" {text}\n")
    assert found.egress_proxy == text
    assert found.redacted()["EGRESS_PROXY"] == "***"


@pytest.mark.parametrize(
    "text",
    [
        *("proxy:3128", "https://proxy:3128", "socks5://proxy:1080", "http://", "http://:3128"),
        *("http://proxy:0", "http://proxy:65536", "http://proxy:x", "http://proxy/path"),
        *("http://proxy?a", "http://proxy#a", "http://a@b@proxy", "http://u:a/b@proxy"),
    ],
)
def test_load_refuses_an_invalid_egress_proxy_without_quoting_it(text: str) -> None:
    with pytest.raises(SettingsError, match="EGRESS_PROXY is invalid: must be http://HOST"):
        load(EGRESS_PROXY=text)


def test_load_reads_the_path_of_an_egress_ca_file(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    found = load(EGRESS_CA_FILE=str(file))
    assert found.egress_ca_file == file
    assert found.redacted()["EGRESS_CA_FILE"] == str(file)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_load_refuses_an_egress_ca_file_without_certificates(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"EGRESS_CA_FILE is .*: must be a readable PEM file"):
        load(EGRESS_CA_FILE=str(file))
