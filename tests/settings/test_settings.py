"""Where settings come from, what is refused and in which words, and that secrets stay hidden."""

import base64
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import trustme
from msgspec.structs import replace

from scheduler_api import settings
from scheduler_api.domain.egress import EgressRules
from scheduler_api.settings import Settings, SettingsError

ROOT = Path(__file__).parents[2]
WEBHOOK_KEY = b"0123456789abcdef01234567"
WEBHOOK_SECRET = f"whsec_{base64.b64encode(WEBHOOK_KEY).decode()}"


def load(**environ: str) -> Settings:
    return settings.load(environ=environ, dotenv=None)


def test_with_nothing_given_every_field_has_its_default() -> None:
    assert load() == Settings()
    assert Settings().api_port == 8000
    assert Settings().request_timeout == timedelta(seconds=30)
    assert Settings().redis_address is None


def test_every_documented_default_is_read_back_as_the_default() -> None:
    assert load(**{it.name: it.default for it in settings.describe()}) == Settings()


def test_every_setting_is_described_once_and_has_a_meaning() -> None:
    described = settings.describe()
    assert len({it.name for it in described}) == len(Settings.__struct_fields__) == len(described)
    assert all(it.meaning and it.name.isupper() for it in described)


def test_env_example_is_what_the_settings_say() -> None:
    assert (ROOT / ".env.example").read_text("utf-8") == settings.example()


def test_env_example_read_as_it_is_changes_nothing() -> None:
    assert settings.load(environ={}, dotenv=ROOT / ".env.example") == Settings()


def test_flags_go_before_environment_before_dotenv(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("API_PORT=1\nWORKERS=2\nMAX_IN_FLIGHT=3\nLOG_LEVEL\n")
    loaded = settings.load({"API_PORT": "7"}, {"API_PORT": "8", "WORKERS": "9"}, file)
    assert (loaded.api_port, loaded.workers, loaded.max_in_flight) == (7, 9, 3)
    assert loaded.log_level == "INFO"


def test_the_process_environment_is_read_when_none_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("API_PORT", "8123")
    assert settings.load(dotenv=None).api_port == 8123


def test_a_dollar_in_dotenv_is_kept_as_written(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN='a${HOME}b'")
    assert settings.load(environ={}, dotenv=tmp_path / ".env").api_token == "a${HOME}b"


def test_load_skips_a_byte_order_mark_in_dotenv(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN=first\nAPI_PORT=8123\n", "utf-8-sig")
    found = settings.load(environ={}, dotenv=tmp_path / ".env")
    assert (found.api_token, found.api_port) == ("first", 8123)


def test_load_skips_a_byte_order_mark_in_a_file_of_a_setting(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n", "utf-8-sig")
    assert load(API_TOKEN_FILE=str(tmp_path / "token")).api_token == "secret"


def test_a_missing_dotenv_is_no_error(tmp_path: Path) -> None:
    assert settings.load(environ={}, dotenv=tmp_path / ".env") == Settings()


def test_a_dotenv_that_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"API_PORT=\xff\xfe")
    with pytest.raises(SettingsError, match=r"\.env cannot be read"):
        settings.load(environ={}, dotenv=tmp_path / ".env")


@pytest.mark.parametrize("empty", ["", " ", "\t\n"])
def test_an_empty_text_counts_as_not_given(empty: str) -> None:
    assert settings.load({"API_PORT": empty}, {"API_PORT": "9"}, None).api_port == 9
    assert load(API_TOKEN=empty, REDIS_HOST=empty, LEASE=empty) == Settings()


def test_unknown_variables_are_no_error() -> None:
    assert load(API_PROT="1") == Settings()


def test_a_name_file_is_read_without_its_final_newline(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("s3cret\r\n")
    assert load(API_TOKEN_FILE=str(tmp_path / "t")).api_token == "s3cret"


def test_an_empty_name_file_counts_as_not_given(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("\n")
    assert load(API_TOKEN_FILE=str(tmp_path / "t")).api_token == ""


def test_a_name_and_its_file_together_are_refused() -> None:
    with pytest.raises(SettingsError, match="API_TOKEN and API_TOKEN_FILE are both given"):
        load(API_TOKEN="a", API_TOKEN_FILE="b")


def test_a_flag_goes_before_a_name_file_of_the_environment() -> None:
    assert settings.load({"API_TOKEN": "a"}, {"API_TOKEN_FILE": "/nowhere"}, None).api_token == "a"


def test_a_missing_name_file_is_told_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"API_TOKEN_FILE is '.*gone'.*No such file"):
        load(API_TOKEN_FILE=str(tmp_path / "gone"))


def test_a_name_file_that_is_no_text_is_told_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"\xffhidden")
    with pytest.raises(SettingsError, match="not a text in UTF-8") as caught:
        load(API_TOKEN_FILE=str(tmp_path / "t"))
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("API_PORT", " 0 ", "api_port", 0),
        ("API_PORT", "65535", "api_port", 65_535),
        ("LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("LOG_FORMAT", "JSON", "log_format", "json"),
        ("REDIS_PREFIX", "a.B-c_9", "redis_prefix", "a.B-c_9"),
        ("DATA_DIR", "/var/lib/x y", "data_dir", Path("/var/lib/x y")),
        ("REQUEST_TIMEOUT", "15m", "request_timeout", timedelta(minutes=15)),
        ("LEASE", "1s", "lease", timedelta(seconds=1)),
        ("KEEP_DELIVERED", "0", "keep_delivered", timedelta()),
        ("DEFAULT_TIMEZONE", "America/Sao_Paulo", "default_timezone", "America/Sao_Paulo"),
        ("EGRESS_ALLOW", "n8n:5678", "egress_allow", EgressRules.parse("n8n:5678")),
        ("SIGNING_SECRET", WEBHOOK_SECRET, "signing_secrets", (WEBHOOK_KEY,)),
        ("API_TOKEN", " spaced \n", "api_token", "spaced"),
        ("MAX_BODY", "1MiB", "max_body", 1024**2),
        ("MAX_BODY", "512KiB", "max_body", 512 * 1024),
        ("MAX_BODY", "1048576", "max_body", 1024**2),
        ("MAX_BODY", "1MB", "max_body", 1000**2),
        ("MAX_BODY", "64 mib", "max_body", 64 * 1024**2),
        ("REDIS_URL", "unix:///run/store.sock", "redis_url", "unix:///run/store.sock"),
        ("REDIS_URL", "rediss://:p@[::1]:7/2\n", "redis_url", "rediss://:p@[::1]:7/2"),
        ("REDIS_URL", "redis+cluster://a:1,b", "redis_url", "redis+cluster://a:1,b"),
        (
            "REDIS_URL",
            "rediss+cluster://u:p@[::1]:7/",
            "redis_url",
            "rediss+cluster://u:p@[::1]:7/",
        ),
        ("REDIS_URL", "redis+sentinel://a,b:2/m", "redis_url", "redis+sentinel://a,b:2/m"),
        ("REDIS_URL", "redis+sentinel://u:p@a/m/3", "redis_url", "redis+sentinel://u:p@a/m/3"),
        ("REDIS_URL", "redis://a/", "redis_url", "redis://a/"),
        ("REDIS_URL", "redis://a?db=3&protocol=2", "redis_url", "redis://a?db=3&protocol=2"),
        ("REDIS_URL", "rediss://a?ssl_ca_certs=/c", "redis_url", "rediss://a?ssl_ca_certs=/c"),
    ],
)
def test_a_right_value_is_read(name: str, text: str, field: str, value: object) -> None:
    assert getattr(load(**{name: text}), field) == value


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("API_PORT", "65536", "a whole number from 0 to 65535"),
        ("API_PORT", "-1", "a whole number from 0 to 65535"),
        ("API_PORT", "\uff18\uff10", "a whole number from 0 to 65535"),
        ("API_PORT", "9" * 5000, "a whole number from 0 to 65535"),
        ("WORKERS", "65", "from 1 to 64"),
        ("STRICT", "maybe", "1 or 0"),
        ("DURABILITY", "disk", "one of store, replica"),
        ("MAX_IN_FLIGHT", "0", "from 1 to 10000"),
        ("DESTINATION_CONCURRENCY", "0", "from 1 to"),
        ("LOG_LEVEL", "TRACE", "one of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "xml", "one of auto, json, console"),
        ("REDIS_PREFIX", "a{b}", "1 to 64 letters"),
        ("REDIS_PREFIX", "a" * 65, "1 to 64 letters"),
        ("REQUEST_TIMEOUT", "999ms", "a duration from 1s to 15m"),
        ("REQUEST_TIMEOUT", "soon", "examples: 90s"),
        ("LEASE", "61m", "a duration from 1s to 1h"),
        ("MAX_BODY", "1023", "a size from 1KiB to 64MiB"),
        ("MAX_BODY", "65MiB", "a size from 1KiB to 64MiB"),
        ("MAX_BODY", "1 furlong", "a size from 1KiB to 64MiB"),
        ("MAX_BODY", "much", "a size from 1KiB to 64MiB"),
        ("DEFAULT_TIMEZONE", "America/Sao_Paolo", "did you mean America/Sao_Paulo"),
        ("EGRESS_ALLOW", "10.0.0.0/99", "no network"),
    ],
)
def test_a_wrong_value_is_told_with_its_name_and_what_would_be_right(
    name: str, text: str, right: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: text})
    assert str(caught.value).startswith(f"{name} is {text!r}: ")
    assert right in str(caught.value)


@pytest.mark.parametrize(
    ("name", "text", "right"),
    [
        ("API_TOKEN", "hidden\nsecond", "one line"),
        ("SIGNING_SECRET", "whsec_hidden!", "whsec_"),
        ("REDIS_URL", "http://:hidden@x", "redis://HOST, rediss://HOST, unix:///PATH"),
        ("REDIS_URL", "redis+cluster://:hidden@x,y:0", "redis+cluster://HOST,HOST"),
        ("REDIS_URL", "redis+cluster://:hidden@x,", "redis+cluster://HOST,HOST"),
        ("REDIS_URL", "redis+cluster://:hidden@x/1", "redis+cluster://HOST,HOST"),
        ("REDIS_URL", "redis+sentinel://:hidden@x", "redis+sentinel://HOST,HOST/MASTER"),
        ("REDIS_URL", "redis+sentinel://:hidden@x/m/n", "redis+sentinel://HOST,HOST/MASTER"),
        ("REDIS_URL", "unix+cluster://:hidden@x", "redis+cluster://HOST,HOST"),
        ("REDIS_URL", "redis+other://:hidden@x", "redis+cluster://HOST,HOST"),
        ("REDIS_URL", "redis+://:hidden@x", "redis://HOST"),
        ("REDIS_URL", "redis://:hidden@x,y", "redis://HOST"),
        ("REDIS_URL", "redis://:hidden@", "each HOST"),
        ("REDIS_URL", "redis://:hidden@x:99999", "each HOST"),
        ("REDIS_URL", "redis://:hidden@x:0", "each HOST"),
        ("REDIS_URL", "unix://", "each HOST"),
        ("REDIS_URL", "hidden", "redis://"),
        ("REDIS_URL", "redis://:hidden@x/prod", "the number of a database, such as /0"),
        ("REDIS_URL", "rediss://:hidden@x/0/1", "the number of a database"),
        ("REDIS_URL", "redis://:hidden@x?family=0", "options after ? that this kind has are user"),
        ("REDIS_URL", "redis://x?decode_responses=hidden", "options after ?"),
        ("REDIS_URL", "redis://x/0?hidden", "options after ?"),
        ("REDIS_URL", "redis://x?ssl_ca_certs=hidden", "options after ?"),
        ("REDIS_URL", "redis+cluster://x?db=1", "options after ?"),
        ("REDIS_URL", "unix:///s?socket_keepalive=1", "options after ?"),
        ("REDIS_URL", "redis://x?sentinel_password=hidden", "options after ?"),
        ("REDIS_URL", "redis://x?socket_timeout=hidden", "option socket_timeout has a wrong value"),
        ("REDIS_URL", "redis://x?socket_timeout=0", "option socket_timeout has a wrong value"),
        ("REDIS_URL", "redis://x?db=-1", "option db has a wrong value"),
        ("REDIS_URL", "redis://x?password=", "option password has a wrong value"),
        ("REDIS_URL", "rediss://x?ssl_cert_reqs=hidden", "option ssl_cert_reqs has a wrong value"),
    ],
)
def test_a_wrong_secret_is_told_without_quoting_it(name: str, text: str, right: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: text})
    assert right in str(caught.value)
    assert str(caught.value).startswith(f"{name} has a wrong value: ")
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("no", False)]
)
def test_a_flag_is_read_from_its_usual_words(text: str, value: bool) -> None:
    assert load(STRICT=text).strict is value


def test_redis_host_port_and_password_make_one_address() -> None:
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
def test_the_address_of_the_store(environ: dict[str, str], address: str | None) -> None:
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
def test_the_store_that_an_earlier_source_names_holds(
    flags: dict[str, str], environ: dict[str, str], dotenv: str, address: str, tmp_path: Path
) -> None:
    """Whether that source names it by REDIS_URL or by REDIS_HOST."""
    (tmp_path / ".env").write_text(dotenv)
    assert settings.load(flags, environ, tmp_path / ".env").redis_address == address


@pytest.mark.parametrize("used", [{}, {"REDIS_URL": "redis://a"}])
def test_a_port_that_is_not_used_is_not_judged(used: dict[str, str]) -> None:
    """Kubernetes sets it beside a Service named redis."""
    loaded = load(REDIS_PORT="tcp://10.0.0.7:6379", **used)
    assert loaded.redis_address == used.get("REDIS_URL")


@pytest.mark.parametrize("name", ["REDIS_PORT", "API_PORT"])
def test_a_port_of_kubernetes_that_is_used_is_told_with_what_to_do(name: str) -> None:
    with pytest.raises(SettingsError, match=r"Kubernetes sets it .* enableServiceLinks: false"):
        load(REDIS_HOST="redis", **{name: "tcp://10.0.0.7:6379"})


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
def test_values_that_stand_in_quotes_are_known(environ: dict[str, str], quoted: list[str]) -> None:
    """Docker's --env-file takes the quotes for a part of the value."""
    assert load(**environ).in_quotes() == quoted


def test_quotes_in_dotenv_are_no_part_of_the_value(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("API_TOKEN=\"abc\"\nREDIS_HOST='h'\n")
    loaded = settings.load(environ={}, dotenv=tmp_path / ".env")
    assert (loaded.api_token, loaded.in_quotes()) == ("abc", [])


def test_a_copy_is_not_waited_for_on_a_cluster() -> None:
    with pytest.raises(SettingsError, match="DURABILITY is 'replica', which a Cluster"):
        load(DURABILITY="replica", REDIS_URL="redis+cluster://a")


def test_a_password_without_a_host_does_not_quietly_mean_the_embedded_store() -> None:
    with pytest.raises(SettingsError, match="REDIS_PASSWORD is given without REDIS_HOST"):
        load(REDIS_PASSWORD="p")


@pytest.mark.parametrize("show", [repr, str, Settings.redacted, Settings.__rich_repr__])
def test_no_view_of_the_settings_shows_a_secret(show: Callable[[Settings], object]) -> None:
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


def test_values_are_shown_in_the_form_in_which_they_are_given() -> None:
    shown = replace(
        Settings(),
        lease=timedelta(milliseconds=1500),
        keep_failed=timedelta(0),
        max_body=1025,
        data_dir=Path("/data"),
        egress_allow=EgressRules.parse("private"),
    ).redacted()
    assert (shown["LEASE"], shown["KEEP_FAILED"], shown["MAX_BODY"]) == ("1.5s", "0", "1025")
    assert shown["DATA_DIR"] == "/data"
    assert "private=True" in shown["EGRESS_ALLOW"]
    assert replace(Settings(), max_body=2048).redacted()["MAX_BODY"] == "2KiB"


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
def test_egress_proxy_is_the_url_of_an_http_proxy(text: str) -> None:
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
def test_egress_proxy_that_is_none_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(SettingsError, match="EGRESS_PROXY has a wrong value: give http://HOST"):
        load(EGRESS_PROXY=text)


def test_egress_ca_file_has_certificates(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    found = load(EGRESS_CA_FILE=str(file))
    assert found.egress_ca_file == file
    assert found.redacted()["EGRESS_CA_FILE"] == str(file)


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_egress_ca_file_without_certificates_is_refused(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingsError, match=r"EGRESS_CA_FILE is .*: give a file of certificates"):
        load(EGRESS_CA_FILE=str(file))
