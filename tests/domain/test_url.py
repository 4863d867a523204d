"""URLs that a message may name, and their canonical form."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from scheduler_api.domain.url import BAD_PORTS, WebhookUrl, parse_url


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://h", WebhookUrl("https://h", "h", 8, "h", 443)),
        ("http://h/", WebhookUrl("http://h/", "h", 7, "h", 80)),
        ("HTTP://H.Example/P", WebhookUrl("http://h.example/P", "h.example", 7, "h.example", 80)),
        ("https://h:8443?q", WebhookUrl("https://h:8443?q", "h:8443", 8, "h", 8443)),
        ("https://h:443/", WebhookUrl("https://h:443/", "h:443", 8, "h", 443)),
        (
            "http://my_n8n:5678/",
            WebhookUrl("http://my_n8n:5678/", "my_n8n:5678", 7, "my_n8n", 5678),
        ),
        ("http://192.0.2.1/", WebhookUrl("http://192.0.2.1/", "192.0.2.1", 7, "192.0.2.1", 80)),
        ("http://[::1]:90/", WebhookUrl("http://[::1]:90/", "[::1]:90", 7, "::1", 90)),
        ("http://[0:0::DB8]", WebhookUrl("http://[::db8]", "[::db8]", 7, "::db8", 80)),
        ("http://h./x", WebhookUrl("http://h./x", "h.", 7, "h.", 80)),
        ("http://xn--bcher-kva.example", None),
        ("http://1a.2b/", None),
        ("http://0xg/", None),
        ("http://h/a@b:c/%zz/[]?x=http://y@z", None),
        ("http://h:2/", None),
        ("http://h:65535/", None),
        ("http://" + ".".join(["a" * 63] * 3 + ["b" * 61]), None),
        ("http://h/" + "x" * 2_039, None),
    ],
)
def test_parse_url_reads_a_url_and_where_its_authority_starts(
    text: str, expected: WebhookUrl | None
) -> None:
    url = parse_url(text)
    assert expected is None or url == expected
    assert url.url[url.start :].startswith(url.authority)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must start with http:// or https://"),
        ("h", "must start with http:// or https://"),
        ("ftp://h/", "must start with http:// or https://"),
        ("ws://h/", "must start with http:// or https://"),
        ("tcp://h/", "must start with http:// or https://"),
        ("http:/h/", "must start with http:// or https://"),
        ("http:h", "must start with http:// or https://"),
        ("//h/", "must start with http:// or https://"),
        ("http:///path", "is not a host name"),
        ("http://", "is not a host name"),
        ("http://?q", "is not a host name"),
        ("http://:80/", "is not a host name"),
        (" http://h/", "must start with http:// or https://"),
        ("http://h/ ", "must not have spaces, control characters or backslashes"),
        ("ht\ntp://h/", "must start with http:// or https://"),
        ("http://h\t/", "must not have spaces, control characters or backslashes"),
        ("http://h/\r\n", "must not have spaces, control characters or backslashes"),
        ("http://h/\x00", "must not have spaces, control characters or backslashes"),
        ("http://h/\x7f", "must not have spaces, control characters or backslashes"),
        ("http://h\\@evil/", "must not have spaces, control characters or backslashes"),
        ("http://h/#f", "must not have a #fragment"),
        ("http://h#@evil/", "must not have a #fragment"),
        ("http://user@h/", "without a user name"),
        ("http://user:pw@h/", "without a user name"),
        ("http://@h/", "without a user name"),
        ("http://h:80@evil/", "without a user name"),
        ("http://[::1]h/", "without a user name"),
        ("http://h[::1]/", "without a user name"),
        ("http://[::1/", "without a user name"),
        ("http://::1]/", "is not a host name"),
        ("http://::1/", "is not a host name"),
        ("http://[]/", "is not an IPv6 address"),
        ("http://[::g]/", "is not an IPv6 address"),
        ("http://[127.0.0.1]/", "is not an IPv6 address"),
        ("http://[fe80::1%25lo]/", "is not an IPv6 address without a zone"),
        ("http://[fe80::1%lo]/", "is not an IPv6 address without a zone"),
        ("http://[v1.x]/", "is not an IPv6 address"),
        ("http://127.1/", "is not an IPv4 address"),
        ("http://0x7f.1/", "is not an IPv4 address"),
        ("http://0X7F000001/", "is not an IPv4 address"),
        ("http://0x/", "is not an IPv4 address"),
        ("http://2130706433/", "is not an IPv4 address"),
        ("http://0177.0.0.1/", "is not an IPv4 address"),
        ("http://127.0.0.1./", "is not an IPv4 address"),
        ("http://127.0.0.1.1/", "is not an IPv4 address"),
        ("http://256.0.0.1/", "is not an IPv4 address"),
        ("http://n8n.1/", "is not an IPv4 address"),
        ("http://a..b/", "is not a host name"),
        ("http://.a/", "is not a host name"),
        ("http://a../", "is not a host name"),
        ("http://%31/", "is not a host name"),
        ("http://a%2eb/", "is not a host name"),
        ("http://a,b/", "is not a host name"),
        ("http://*.a/", "is not a host name"),
        ("http://" + "a" * 64, "is not a host name"),
        ("http://" + ".".join(["a" * 63] * 4), "is not a host name"),
        ("http://h:/", "a port must be a number"),
        ("http://h:0/", "a port must be a number"),
        ("http://h:080/", "a port must be a number"),
        ("http://h:65536/", "a port must be a number"),
        ("http://h:99999999999/", "a port must be a number"),
        ("http://h:-1/", "a port must be a number"),
        ("http://h:80:80/", "a port must be a number"),
        ("http://h:x/", "a port must be a number"),
        ("http://h/" + "x" * 2_040, "at most 2048 characters"),
        ("http://" + ".".join(["a" * 63] * 3 + ["b" * 61]) + ":443", "255 in host and port"),
    ],
)
def test_parse_url_refuses_what_readers_could_read_differently(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        parse_url(text)
    assert str(caught.value).isascii()


@pytest.mark.parametrize("port", sorted(BAD_PORTS))
def test_parse_url_refuses_a_port_of_another_protocol(port: int) -> None:
    with pytest.raises(
        ValueError, match=f"port {port} is not allowed; use a port of an HTTP server"
    ):
        parse_url(f"http://h:{port}/")


NEAR_URLS = st.builds(
    "{}{}{}".format,
    st.sampled_from(["http://", "https://", "HTTPS://"]),
    st.text("abz019xX.-_:[]%@f", max_size=20) | st.ip_addresses().map(str),
    st.text("/?&=%.:@abc[]", max_size=10),
)


@given(st.text() | NEAR_URLS)
def test_parse_url_of_any_text_is_an_error_or_canonical_and_agrees_with_yarl(text: str) -> None:
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert parse_url(url.url) == url
    theirs = URL(url.url)
    assert (theirs.raw_host, theirs.port) == (url.host, url.port)
    assert url.url.startswith(f"{theirs.scheme}://{url.authority}")


@given(st.ip_addresses(v=6), st.integers(81, 86))
def test_parse_url_writes_every_form_of_an_ipv6_address_alike(address: object, port: int) -> None:
    spelled = ip_address(str(address))
    urls = [parse_url(f"http://[{text}]:{port}/") for text in (str(spelled), spelled.exploded)]
    assert urls[0] == urls[1]
