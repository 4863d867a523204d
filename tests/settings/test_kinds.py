"""Which values are valid, how they are read, and what the error says."""

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from scheduler_api.domain.egress import EgressRules
from scheduler_api.settings import Settings, SettingsError
from tests.settings.given import load

WEBHOOK_KEY = b"0123456789abcdef01234567"
WEBHOOK_SECRET = f"whsec_{base64.b64encode(WEBHOOK_KEY).decode()}"


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("API_PORT", " 0 ", "api_port", 0),
        ("API_PORT", "65535", "api_port", 65_535),
        ("ROOT_PATH", "/a/b/", "root_path", "/a/b"),
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
def test_load_reads_a_valid_value(name: str, text: str, field: str, value: object) -> None:
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
        ("ROOT_PATH", "a", "a path that begins with a slash"),
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
        ("EGRESS_ALLOW", "10.0.0.0/99", "not a network"),
    ],
)
def test_load_names_the_variable_and_the_valid_values_of_an_invalid_one(
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
        ("REDIS_URL", "redis://:hidden@x/prod", "a database number, for example /0"),
        ("REDIS_URL", "rediss://:hidden@x/0/1", "a database number"),
        (
            "REDIS_URL",
            "redis://:hidden@x?family=0",
            "unknown option after ?; valid options are user",
        ),
        ("REDIS_URL", "redis://x?decode_responses=hidden", "unknown option after ?"),
        ("REDIS_URL", "redis://x/0?hidden", "unknown option after ?"),
        ("REDIS_URL", "redis://x?ssl_ca_certs=hidden", "unknown option after ?"),
        ("REDIS_URL", "redis+cluster://x?db=1", "unknown option after ?"),
        ("REDIS_URL", "unix:///s?socket_keepalive=1", "unknown option after ?"),
        ("REDIS_URL", "redis://x?sentinel_password=hidden", "unknown option after ?"),
        (
            "REDIS_URL",
            "redis://x?socket_timeout=hidden",
            "option socket_timeout has an invalid value",
        ),
        ("REDIS_URL", "redis://x?socket_timeout=0", "option socket_timeout has an invalid value"),
        ("REDIS_URL", "redis://x?db=-1", "option db has an invalid value"),
        ("REDIS_URL", "redis://x?password=", "option password has an invalid value"),
        (
            "REDIS_URL",
            "rediss://x?ssl_cert_reqs=hidden",
            "option ssl_cert_reqs has an invalid value",
        ),
    ],
)
def test_load_does_not_quote_an_invalid_secret(name: str, text: str, right: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: text})
    assert right in str(caught.value)
    assert str(caught.value).startswith(f"{name} is invalid: ")
    assert "hidden" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("no", False)]
)
def test_load_reads_the_usual_words_of_a_flag(text: str, value: bool) -> None:
    assert load(STRICT=text).strict is value


@pytest.mark.parametrize("name", ["REDIS_PORT", "API_PORT"])
def test_load_explains_a_port_that_kubernetes_sets(name: str) -> None:
    with pytest.raises(
        SettingsError, match=r"Kubernetes sets this variable .* enableServiceLinks: false"
    ):
        load(REDIS_HOST="redis", **{name: "tcp://10.0.0.7:6379"})


def test_redacted_shows_values_in_the_form_in_which_they_are_set() -> None:
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
