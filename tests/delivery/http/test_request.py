"""A request as bytes."""

import pytest
from yarl import URL

from scheduler_api.delivery.http.request import request_target, serialize

URL_OF_ALL = URL("https://[2001:db8::1]:8443/a%20b/?q=%C3%A9&x#part", encoded=True)


def test_serialize_adds_host_and_content_length() -> None:
    assert serialize(
        "POST", URL_OF_ALL, "/a%20b/?q=%C3%A9&x", {"A": "b", "C": "d \t e"}, b"body"
    ) == (
        b"POST /a%20b/?q=%C3%A9&x HTTP/1.1\r\n"
        b"Host: [2001:db8::1]:8443\r\n"
        b"A: b\r\n"
        b"C: d \t e\r\n"
        b"Content-Length: 4\r\n"
        b"\r\n"
        b"body"
    )


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("http://example.com", b"Host: example.com\r\n"),
        ("http://example.com:80/", b"Host: example.com\r\n"),
        ("https://example.com:80/", b"Host: example.com:80\r\n"),
    ],
)
def test_serialize_omits_the_default_port_in_host(url: str, line: bytes) -> None:
    assert serialize("GET", URL(url), "/", {}, None) == b"GET / HTTP/1.1\r\n" + line + b"\r\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_serialize_adds_length_zero_without_a_body_except_for_get(method: str) -> None:
    assert b"\r\nContent-Length: 0\r\n\r\n" in serialize(method, URL_OF_ALL, "/", {}, None)


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_serialize_adds_length_zero_for_an_empty_body(method: str) -> None:
    assert b"\r\nContent-Length: 0\r\n\r\n" in serialize(method, URL_OF_ALL, "/", {}, b"")


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\x0b", "\x1f", "\x7f"])
@pytest.mark.parametrize("name", ["X", "X{}"])
def test_serialize_refuses_control_characters(name: str, character: str) -> None:
    headers = {name.format(character): f"a{character}b"}
    with pytest.raises(ValueError, match="control character"):
        serialize("POST", URL_OF_ALL, "/", headers, b"")


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://example.com", "/"),
        ("http://example.com/", "/"),
        ("http://example.com/?", "/?"),
        ("http://example.com?", "/?"),
        ("https://[2001:db8::1]:8443/a?", "/a?"),
        ("http://example.com/a??", "/a??"),
        ("http://example.com/a?b=?", "/a?b=?"),
        ("http://example.com?a=http://b/", "/?a=http://b/"),
        ("http://example.com//a/../b/./%2F%2f~", "//a/../b/./%2F%2f~"),
        ("http://example.com/a;b=c,d@e:f|g", "/a;b=c,d@e:f|g"),
        ("http://example.com/a?b#part", "/a?b"),
    ],
)
def test_request_target_keeps_path_and_query(url: str, target: str) -> None:
    assert request_target(url) == target
