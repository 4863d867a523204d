"""Content types: JSON or text, and the charset of a body."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from scheduler_api.domain.content_type import charset_of, decode_text, encode_payload, is_json
from scheduler_api.domain.errors import Invalid
from scheduler_api.domain.message import Spec, payload
from tests.support.factories import accepted


def only_error(**fields: Any) -> tuple[str, str]:
    with pytest.raises(Invalid) as caught:
        accepted(**fields)
    (error,) = caught.value.errors
    return error.path, error.message


@pytest.mark.parametrize(
    ("content_type", "json_body"),
    [
        ("application/json", True),
        ("Application/JSON; charset=utf-8", True),
        ("application/json ;a=b", True),
        ("application/cloudevents+json", True),
        ("text/plain", False),
        ("application/jsonp", False),
        ("text/json", False),
        ("application/xml; type=application/json", False),
    ],
)
def test_is_json_reads_the_name_and_its_suffix(content_type: str, json_body: bool) -> None:
    assert is_json(content_type) is json_body


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain", "utf-8"),
        ("text/plain; charset=iso-8859-1", "iso-8859-1"),
        ("text/plain;charset=ISO-8859-1", "ISO-8859-1"),
        ('text/plain; Charset="windows-1252"', "windows-1252"),
        ("text/plain; format=flowed; charset=us-ascii", "us-ascii"),
        ("text/plain; charset = latin1", "latin1"),
        ("text/plain; charset=utf-8; charset=utf-8", "utf-8"),
        ('multipart/mixed; boundary="a;charset=x"', "utf-8"),
        (r'multipart/mixed; boundary="a\";charset=x"; charset=utf-16', "utf-16"),
        ("text/plain; xcharset=x", "utf-8"),
        ("charset=x", "utf-8"),
    ],
)
def test_charset_of_reads_the_parameter(content_type: str, charset: str) -> None:
    assert charset_of(content_type) == charset


@pytest.mark.parametrize(
    "charset",
    [
        *("klingon", "", '""', "utf-8-x", "iso-8859-99", "../os", "a" * 41),
        *(
            "base64",
            "rot13",
            "hex",
            "bz2",
            "idna",
            "punycode",
            "undefined",
            "charmap",
            "utf-7",
            "u7",
        ),
        *("unicode_escape", "raw-unicode-escape", "utf-8-sig", "UTF_8_SIG"),
    ],
)
@pytest.mark.parametrize("base", ["text/plain", "application/json"])
def test_accept_refuses_an_unknown_charset(base: str, charset: str) -> None:
    path, message = only_error(contentType=f"{base}; charset={charset}", payload="a")
    assert path == "/contentType"
    assert "is not a known charset: use utf-8, iso-8859-1 or another IANA name" in message


def test_accept_refuses_an_unknown_charset_in_the_header_and_without_a_payload() -> None:
    path, message = only_error(headers={"content-type": "text/plain; charset=klingon"})
    assert (path, message[:9]) == ("/contentType", "'klingon'")


def test_accept_refuses_several_charsets() -> None:
    wrong = only_error(contentType="text/plain; charset=utf-8; charset=ascii", payload="a")
    assert wrong == ("/contentType", "a content type must name only one charset")


@pytest.mark.parametrize(
    ("charset", "text", "body"),
    [
        ("iso-8859-1", "olá", b"ol\xe1"),
        ("ISO-8859-15", "5 €", b"5 \xa4"),
        ("windows-1252", "5 €", b"5 \x80"),
        ("utf-16le", "é", b"\xe9\x00"),
        ("utf-16be", "é", b"\x00\xe9"),
        ("us-ascii", "ola", b"ola"),
        ("shift_jis", "日本", b"\x93\xfa\x96\x7b"),
        ("gb18030", "日", b"\xc8\xd5"),
        ("utf-8", "日", b"\xe6\x97\xa5"),
    ],
)
def test_accept_encodes_text_in_the_charset_that_the_type_names(
    charset: str, text: str, body: bytes
) -> None:
    for given_as in (
        {"contentType": f"text/plain; charset={charset}"},
        {"headers": {"Content-Type": f'text/plain; charset="{charset}"'}},
    ):
        spec = accepted(payload=text, **given_as).spec
        assert spec.body == body
        assert payload(spec) == text


@pytest.mark.parametrize(
    ("charset", "text", "shown"),
    [
        ("iso-8859-1", "5 €", r"'\u20ac' at position 2 is not in iso-8859-1"),
        ("us-ascii", "olá", r"'\xe1' at position 2 is not in us-ascii"),
        ("windows-1252", "😀", r"'\U0001f600' at position 0 is not in windows-1252"),
        ("shift_jis", "é", r"'\xe9' at position 0 is not in shift_jis"),
    ],
)
def test_accept_refuses_a_character_that_the_charset_does_not_have(
    charset: str, text: str, shown: str
) -> None:
    wrong = only_error(contentType=f"text/plain; charset={charset}", payload=text)
    assert wrong == (
        "/payload",
        f"character {shown}: use a charset that has it, for example utf-8",
    )


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "utf8"])
def test_accept_sends_json_in_utf_8_byte_for_byte(charset: str) -> None:
    sent = '{ "é":1.10}'.encode()
    assert encode_payload(sent, f"application/json; charset={charset}") == sent


@pytest.mark.parametrize("charset", ["us-ascii", "iso-8859-1", "windows-1252"])
@pytest.mark.parametrize("base", ["application/json", "application/problem+json"])
def test_accept_sends_json_of_ascii_in_a_charset_that_contains_ascii(
    base: str, charset: str
) -> None:
    sent = rb'{ "\u00e9":1.10}'
    assert encode_payload(sent, f"{base}; charset={charset}") == sent


@pytest.mark.parametrize(
    ("charset", "value", "reason"),
    [
        ("iso-8859-1", "olá", "in UTF-8, which is not valid as iso-8859-1"),
        ("utf-16", 1, "in UTF-8, which is not valid as utf-16"),
        ("us-ascii", "olá", r"character '\xe1' at position 3 is not in us-ascii"),
    ],
)
def test_accept_refuses_json_whose_bytes_differ_in_the_charset(
    charset: str, value: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match="escape") as caught:
        encode_payload(
            json.dumps(value, ensure_ascii=False).encode(), f"application/json; charset={charset}"
        )
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=us-ascii", "olá".encode(), "olá"),
        ("text/plain; charset=klingon", "olá".encode(), "olá"),
        ("text/plain; charset=utf-16", b"a", "a"),
        ("text/plain", b"ol\xe1", "ol\ufffd"),
    ],
)
def test_payload_shows_bodies_that_an_older_version_stored_in_utf_8(
    content_type: str, body: bytes, text: str
) -> None:
    assert payload(Spec(content_type=content_type, body=body)) == text


def test_payload_of_a_json_type_is_the_body() -> None:
    spec = Spec(content_type="application/json; charset=us-ascii", body=b"[1]")
    assert payload(spec) == Raw(b"[1]")


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["utf-8", "utf-16", "utf-32be"]))
def test_decode_text_is_the_inverse_of_encode_payload(text: str, charset: str) -> None:
    content_type = f"text/plain; charset={charset}"
    spec = accepted(payload=text, contentType=content_type).spec
    assert spec.body is not None
    assert decode_text(spec.body, content_type) == text


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E)))
def test_charset_of_any_text_is_a_charset_or_a_value_error(text: str) -> None:
    try:
        charset = charset_of(f"text/plain; charset={text}")
    except ValueError:
        return
    assert "a".encode(charset)
