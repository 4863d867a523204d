"""URLs that a message may name: checked, and in one canonical form."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final

import msgspec

from scheduler_api.domain.international_url import ascii_host, ascii_url

MAX_URL: Final = 2_048  # characters
MAX_AUTHORITY: Final = 255  # bytes; a stored message keeps this length in one byte

# Ports of other protocols than HTTP (WHATWG Fetch, "bad port").
# fmt: off
BAD_PORTS: Final = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
))
# fmt: on

_SCHEME: Final = re.compile(r"(?i:https?)://")
_SAFE: Final = r"!-\"$-.0->@-\[\]-~"  # visible ASCII without # / ? and the backslash
_ASCII_URL: Final = re.compile(rf"((?i:https?))://([{_SAFE}]*)([{_SAFE}/?]*)", re.ASCII)
_AUTHORITY: Final = re.compile(r"(\[[^\[\]@]*\]|[^\[\]@:]*)(?::([^@]*))?")
_WITHOUT_DEFAULTS: Final = re.compile(r"(.+?)\.?(?::(?:80|443)|(:[0-9]+))?")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
# RFC 952 has no underscores in host names, but names of containers often have them.
_HOST_NAME: Final = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_ENDS_IN_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")


class WebhookUrl(msgspec.Struct, frozen=True):
    """A valid URL in ASCII: scheme and host in canonical form, path and query as given."""

    url: str  # the whole URL
    authority: str  # host[:port] as in the URL; see destination_name
    start: int  # index of the authority in the URL
    host: str  # name or address, in lower case, without the brackets of IPv6
    port: int  # 1–65535; the scheme's default if the URL has none
    given: str | None = None  # the URL as it was sent; None: it was in ASCII


def parse_url(text: str) -> WebhookUrl:
    """The URL in canonical form. Raises: ValueError, also for what parsers read differently."""
    encoded = text if text.isascii() or len(text) > MAX_URL else ascii_url(text)
    scheme, given, rest = _split(encoded)
    authority, host, port = _authority_parts(scheme, given.lower())
    url = f"{scheme}://{authority}{rest}"
    if len(url) > MAX_URL or len(authority) > MAX_AUTHORITY:
        raise ValueError(
            f"a URL must have at most {MAX_URL} characters, and {MAX_AUTHORITY} in host and port"
        )
    start = len(scheme) + 3
    return WebhookUrl(url, authority, start, host, port, None if encoded is text else text)


def parse_destination(text: str) -> str:
    """The name of a destination, from host[:port] in any form. Raises: ValueError."""
    host, written_port = split_host_port(ascii_host(text).lower())
    if written_port is None:
        return destination_name(host)
    return destination_name(f"{host}:{_web_port(written_port, 'http')}")


@lru_cache(maxsize=4096)
def destination_name(authority: str) -> str:
    """The name of the destination of a canonical authority: without :80, :443 and a final dot.

    All authorities of one receiver have the same name. lua/lib/record.lua has the same rule for the
    destinations of stored messages.
    """
    found = _WITHOUT_DEFAULTS.fullmatch(authority)
    return authority if found is None else found[1] + (found[2] or "")


def split_host_port(authority: str) -> tuple[str, str | None]:
    """Canonical host and the port as text, None without one. `authority` is lower case.

    Raises: ValueError.
    """
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError("use host or host:port without a user name; send credentials in a header")
    return _host(found[1]), found[2]


def parse_port(written: str) -> int:
    """The port, 1–65535. Raises: ValueError."""
    if not _PORT.fullmatch(written) or int(written) > 65_535:
        raise ValueError("a port must be a number from 1 to 65535 without leading zeros")
    return int(written)


def _split(text: str) -> tuple[str, str, str]:
    found = _ASCII_URL.fullmatch(text)
    if found is None:
        raise ValueError(_url_error(text))
    return found[1].lower(), found[2], found[3]


def _url_error(text: str) -> str:
    if not _SCHEME.match(text):
        return "a URL must start with http:// or https://"
    if "#" in text:
        return "a URL must not have a #fragment, which HTTP does not send: remove it"
    return (
        "a URL must not have spaces, control characters or backslashes: "
        "percent-encode them in path and query"
    )


# Most messages go to few hosts, and parsing the host takes most of the time of a check.
@lru_cache(maxsize=4096)
def _authority_parts(scheme: str, given: str) -> tuple[str, str, int]:
    """Canonical authority, host without brackets, port."""
    host, written_port = split_host_port(given)
    port = _web_port(written_port, scheme)
    authority = host if written_port is None else f"{host}:{written_port}"
    return authority, host.strip("[]"), port


def _host(text: str) -> str:
    return f"[{_ipv6(text[1:-1])}]" if text.startswith("[") else _host_name(text)


def _web_port(written: str | None, scheme: str) -> int:
    if written is None:
        return 443 if scheme == "https" else 80
    port = parse_port(written)
    if port in BAD_PORTS:
        raise ValueError(f"port {port} is not allowed; use a port of an HTTP server")
    return port


def _host_name(text: str) -> str:
    # The system reads 127.1, 0x7f.1 and 2130706433 as 127.0.0.1; people read them as names.
    if _ENDS_IN_NUMBER.fullmatch(text):
        return _ipv4(text)
    if not _HOST_NAME.fullmatch(text) or len(text) > 253:
        raise ValueError(
            f"{text[:64]!a} is not a host name: use letters, digits, hyphens, underscores and dots"
        )
    return text


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(
            f"{text[:64]!a} is not an IPv4 address: use four decimal numbers, as in 192.0.2.1"
        ) from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise ValueError(
            f"{text[:64]!a} is not an IPv6 address without a zone; example: 2001:db8::1"
        )
    return address.compressed
