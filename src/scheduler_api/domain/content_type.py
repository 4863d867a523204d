"""Content types: whether a body is JSON, its charset, and payloads encoded for both."""

import codecs
import re
from functools import lru_cache
from typing import Final

import msgspec

JSON_TYPE: Final = "application/json"
UTF_8: Final = "utf-8"  # charset of a body whose type names none

_CHARSET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:+-]{0,39}")
# Python codecs that are not charsets of messages. utf-7 is one, but receivers refuse it: its text
# hides characters like < from filters.
_NO_CHARSETS: Final = frozenset(
    (
        *("charmap", "idna", "punycode", "undefined", "utf-8-sig"),
        *("raw-unicode-escape", "unicode-escape", "utf-7"),
    )
)
_PARAMETER: Final = re.compile(r';\s*([^\s;="]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;"]*))')


def is_json(content_type: str) -> bool:
    """Whether a body of this type is the payload as JSON; otherwise it is the payload's text."""
    if content_type == JSON_TYPE:
        return True
    essence = content_type.partition(";")[0].strip().lower()
    return essence == JSON_TYPE or essence.endswith("+json")


@lru_cache(maxsize=256)
def charset_of(content_type: str) -> str:
    """The charset as the type names it; utf-8 if it names none. Raises: ValueError."""
    named = {
        quoted or plain
        for name, quoted, plain in _PARAMETER.findall(content_type)
        if name.lower() == "charset"
    }
    if len(named) > 1:
        raise ValueError("a content type must name only one charset")
    charset = named.pop() if named else UTF_8
    if not _is_known(charset):
        raise ValueError(
            f"{charset[:40]!a} is not a known charset: use utf-8, iso-8859-1 or another IANA name"
        )
    return charset


def encode_payload(payload: bytes, content_type: str) -> bytes:
    """The body for a payload, which is JSON in UTF-8. Raises: ValueError."""
    if is_json(content_type):
        return _checked_json(payload, content_type)
    try:
        text = msgspec.json.decode(payload, type=str)
    except msgspec.ValidationError:
        raise ValueError(f"for {content_type} the payload must be a string") from None
    return _encode(text, charset_of(content_type), "use a charset that has it, for example utf-8")


def decode_text(body: bytes, content_type: str) -> str:
    """The payload's text for a body that is not JSON."""
    try:
        return body.decode(charset_of(content_type))
    except ValueError:  # stored by a version that sent every text in UTF-8
        return body.decode(errors="replace")


def _checked_json(payload: bytes, content_type: str) -> bytes:
    """The payload unchanged, if its bytes mean the same in the charset of the type."""
    charset = charset_of(content_type)
    if charset.lower() == UTF_8:
        return payload
    if _encode(payload.decode(), charset, r"write it as a \u escape or use utf-8") != payload:
        raise ValueError(
            f"a JSON payload is sent unchanged, in UTF-8, which is not valid as {charset}: "
            r"write all but ASCII characters as \u escapes, or remove the charset"
        )
    return payload


def _encode(text: str, charset: str, advice: str) -> bytes:
    try:
        return text.encode(charset)
    except UnicodeEncodeError as error:
        character = text[error.start]
        raise ValueError(
            f"character {character!a} at position {error.start} is not in {charset}: {advice}"
        ) from None


def _is_known(charset: str) -> bool:
    if not _CHARSET.fullmatch(charset):
        return False
    try:
        "".encode(charset)  # fails for codecs from bytes to bytes, for example base64
        return codecs.lookup(charset).name not in _NO_CHARSETS
    except (LookupError, UnicodeError):
        return False
