"""International URLs and hosts: their ASCII form, and which are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.accept import accept
from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.errors import Invalid
from scheduler_api.domain.url import WebhookUrl, parse_destination, parse_url
from tests.support.factories import accepted, new_message

# Text close to a URL with an international host.
NEAR_URLS = st.text(
    "a\u00e9\u00df\u03c3\u0430\u65e5\u200d\u0301\u2460\uff0e\u3002.:/@?#%[]\\ -1\ud800"
)


@pytest.mark.parametrize(
    ("host", "encoded"),
    [
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER.Example", "xn--bcher-kva.example"),
        ("bu\u0308cher.example", "xn--bcher-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("www.日本語.example", "www.xn--wgv71a119e.example"),
        ("日本語abc.example", "xn--abc-s08fl0dtz6h.example"),
        ("пример.рф", "xn--e1afmkfd.xn--p1ai"),
        ("παράδειγμα.example", "xn--hxajbheg2az3al.example"),
        ("עברית.example", "xn--5dbqzzl.example"),
        ("my_host.é.example.", "my_host.xn--9ca.example."),
        ("xn--bcher-kva.é", "xn--bcher-kva.xn--9ca"),
        ("é:8443", "xn--9ca:8443"),
    ],
)
def test_parse_url_encodes_an_international_host(host: str, encoded: str) -> None:
    text = f"https://{host}/p"
    url = parse_url(text)
    assert url.url == f"https://{encoded}/p"
    assert url.authority == encoded
    assert parse_destination(host) == encoded.removesuffix(".")
    assert url.host == encoded.partition(":")[0]
    assert url.given == text


@pytest.mark.parametrize(
    "host", ["xn--bcher-kva.example", "XN--BCHER-KVA.example", "xn--zzzzz99999.example", "xn--.a"]
)
def test_parse_url_keeps_a_host_in_xn_form(host: str) -> None:
    url = parse_url(f"http://{host}/")
    assert (url.host, url.given) == (host.lower(), None)


@pytest.mark.parametrize(
    ("rest", "encoded"),
    [
        ("/preço", "/pre%C3%A7o"),
        ("/日本?q=é&r=%C3%A9", "/%E6%97%A5%E6%9C%AC?q=%C3%A9&r=%C3%A9"),
        ("?q=😀", "?q=%F0%9F%98%80"),
        ("/e\u0301", "/e%CC%81"),
        ("/a%zz/[é]", "/a%zz/[%C3%A9]"),
    ],
)
def test_parse_url_percent_encodes_path_and_query(rest: str, encoded: str) -> None:
    text = f"http://h{rest}"
    assert parse_url(text) == WebhookUrl(f"http://h{encoded}", "h", 7, "h", 80, text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("http://127\u30020\u30020\u30021/", "separate the parts of a host by full stops"),
        ("http://a\uff0eb/", "separate the parts of a host by full stops"),
        ("http://a\uff61b/", "separate the parts of a host by full stops"),
        ("http://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/", "in a host means 127: write 127"),
        ("http://\uff11\uff12\uff17.0.0.1/", "in a host means 127: write 127"),
        (
            "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/",
            "in a host means localhost:",
        ),
        ("http://\u212a.example/", "in a host means k: write k"),
        ("http://a\u00adé.example/", "in a host means xn--a-bga: write xn--a-bga"),
        ("http://\u2103é.example/", "cannot be part of a host|in a host means"),
        ("http://\u0440\u0430ypal.example/", "mixes letters of Latin and Cyrillic"),
        ("http://g\u03bfogle.example/", "or write xn--gogle-rce if this is intended"),
        ("http://\u03bf\u043e.example/", "mixes letters of Greek and Cyrillic"),
        ("http://\u2603.example/", "cannot be part of a host"),
        ("http://\U0001f4a9.example/", "use its xn-- form"),
        ("http://a\u200db.example/", "cannot be part of a host"),
        ("http://-é.example/", "cannot be part of a host"),
        ("http://é_.example/", "cannot be part of a host"),
        ("http://xn--é.example/", "cannot be part of a host"),
        ("http://\u0301e.example/", "cannot be part of a host"),
        ("http://" + "é" * 63, "cannot be part of a host"),
        ("http://" + "é" * 64, "at most 63 characters"),
        ("http://é..b/", "is not a host name"),
        ("http://é.1/", "is not an IPv4 address"),
        ("http://é:x/", "without a user name"),
        ("http://é:\uff18\uff10/", "without a user name"),
        ("http://é@h/", "without a user name"),
        ("http://é\\h/", "without a user name"),
        ("http://[é]/", "without a user name"),
        ("http://é:25/", "port 25 is not allowed"),
        ("ftp://é/", "must start with http:// or https://"),
        ("é", "must start with http:// or https://"),
        ("http://h/é#f", "must not have a #fragment"),
        ("http://h/é b", "must not have spaces, control characters or backslashes"),
        ("http://h/\ud800", "must not have the character U\\+D800: percent-encode or remove it"),
        ("http://h/a\u00a0", "the character U\\+00A0"),
        ("http://h/\u2028", "the character U\\+2028"),
        ("http://h/\x85", "the character U\\+0085"),
        ("http://h/" + "é" * 400, "at most 2048 characters"),
        ("http://h/" + "é" * 3000, "must not have spaces|at most 2048 characters"),
    ],
)
def test_parse_url_refuses_an_international_url_and_says_what_to_do(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_url(text)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("text", ["日\u3002本", "\u2460", "é/", "é:x"])
def test_parse_destination_refuses_what_parse_url_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="host"):
        parse_destination(text)


def test_egress_rules_match_an_international_host_in_both_forms() -> None:
    for rules in ("BÜCHER.example", "xn--bcher-kva.example", "*.Example"):
        parsed = EgressRules.parse(rules)
        host = parse_url("http://bücher.example/").host
        assert parsed.refusal("10.0.0.5", 80, host) is None
        assert parsed.refusal("10.0.0.5", 80, "other.test")


def test_egress_rules_refuse_an_invalid_international_host() -> None:
    with pytest.raises(
        ValueError, match=r"'\\u2603' in EGRESS_ALLOW is not a network, address, host"
    ):
        EgressRules.parse("a, \u2603")


def test_accept_checks_the_encoded_host() -> None:
    checked: list[tuple[str, int]] = []

    def refusal(host: str, port: int) -> str | None:
        checked.append((host, port))
        return "closed"

    with pytest.raises(Invalid, match="closed"):
        accept(new_message(webhookUrl="http://bücher.example:8080/"), "UTC", refusal)
    assert checked == [("xn--bcher-kva.example", 8080)]


def test_accept_refuses_an_international_name_of_this_machine() -> None:
    new = new_message(webhookUrl="http://é.localhost/")
    with pytest.raises(Invalid, match="is a loopback address"):
        accept(new, "UTC", EgressRules().refusal_of_literal)


@pytest.mark.parametrize(
    ("text", "given"),
    [("http://127.0.0.1:2/é", "http://127.0.0.1:2/é"), ("http://127.0.0.1:2/%C3%A9", None)],
)
def test_accept_keeps_the_url_as_given(text: str, given: str | None) -> None:
    found = accepted(webhookUrl=text)
    assert found.url.url == "http://127.0.0.1:2/%C3%A9"
    assert found.spec.given_url == given


@given(NEAR_URLS | st.text())
def test_parse_url_of_any_text_is_ascii_or_a_value_error_in_ascii(rest: str) -> None:
    try:
        found = parse_url(f"http://{rest}")
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
        assert found.url.isascii()
        assert found.url[found.start :].startswith(found.authority)
        assert parse_url(found.url).url == found.url
    assert refused.isascii()
