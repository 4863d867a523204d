"""Which URLs a message may name, and the one canonical form of each."""

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

import msgspec

from scheduler_api.domain.international_url import ascii_host, ascii_url

# Longest URL, in characters.
MAX_URL = 2_048

# Longest authority, in bytes: its length is kept in one byte beside a stored message.
MAX_AUTHORITY = 255

# Ports that speak something else than HTTP (WHATWG Fetch, "bad port").
# fmt: off
BAD_PORTS = frozenset((
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
))
# fmt: on

_SCHEME = re.compile(r"(?i:https?)://")
_SAFE = r"!-\"$-.0->@-\[\]-~"  # the rest, without # / ?
_URL = re.compile(rf"((?i:https?))://([{_SAFE}]*)([{_SAFE}/?]*)", re.ASCII)
_AUTHORITY = re.compile(r"(\[[^\[\]@]*\]|[^\[\]@:]*)(?::([^@]*))?")
_NAMED = re.compile(r"(.+?)\.?(?::(?:80|443)|(:[0-9]+))?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
# Underscores are no host name by RFC 952, but every second container has one.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\.?")
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?")


class WebhookUrl(msgspec.Struct, frozen=True):
    """A URL that may be stored: canonical scheme and host, in ASCII, the rest as it was given."""

    url: str  # the whole URL
    authority: str  # host[:port] as it stands in the URL; see destination_name
    start: int  # where the authority begins in the URL, in characters
    host: str  # name or address, in lower case, without the brackets of IPv6
    port: int  # 1-65535; the scheme's own when the URL names none
    given: str | None = None  # the URL as asked; None: it was in ASCII


def parse_url(text: str) -> WebhookUrl:
    """The URL, canonical. Raises ValueError for all that two readers could read differently."""
    encoded = text if text.isascii() or len(text) > MAX_URL else ascii_url(text)
    scheme, given, rest = _split(encoded)
    authority, host, port = _place(scheme, given.lower())
    url = f"{scheme}://{authority}{rest}"
    if len(url) > MAX_URL or len(authority) > MAX_AUTHORITY:
        raise ValueError(
            f"a URL has at most {MAX_URL} characters, {MAX_AUTHORITY} in host and port"
        )
    start = len(scheme) + 3
    return WebhookUrl(url, authority, start, host, port, None if encoded is text else text)


def parse_destination(text: str) -> str:
    """The name of a destination, from host[:port] in any spelling. Raises ValueError."""
    host, written_port = split_host_port(ascii_host(text).lower())
    if written_port is None:
        return destination_name(host)
    return destination_name(f"{host}:{_web_port(written_port, 'http')}")


@lru_cache(maxsize=4096)
def destination_name(authority: str) -> str:
    """The one name of all authorities that lead to the same receiver, of canonical ones.

    The ports of http and https are the host's own, whatever the scheme, and a final dot does not
    make another host. lua/lib/record.lua has the same rule for the destinations of stored messages.
    """
    found = _NAMED.fullmatch(authority)
    return authority if found is None else found[1] + (found[2] or "")


def _split(text: str) -> tuple[str, str, str]:
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(_why_no_url(text))
    return found[1].lower(), found[2], found[3]


def _why_no_url(text: str) -> str:
    if not _SCHEME.match(text):
        return "a URL starts with http:// or https://"
    if "#" in text:
        return "a URL to call has no #fragment, which would never be sent: remove it"
    return (
        "a URL has no spaces, control characters or backslashes: "
        "percent-encode them in its path and query"
    )


# Most messages go to few hosts, whose parsing is most of what a new message costs to check.
@lru_cache(maxsize=4096)
def _place(scheme: str, given: str) -> tuple[str, str, int]:
    """Canonical authority, host without brackets, port."""
    host, written_port = split_host_port(given)
    port = _web_port(written_port, scheme)
    authority = host if written_port is None else f"{host}:{written_port}"
    return authority, host.strip("[]"), port


def split_host_port(authority: str) -> tuple[str, str | None]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise ValueError(
            "give host or host:port without a user name: credentials belong in a header"
        )
    return _host(found[1]), found[2]


def _host(text: str) -> str:
    return f"[{_ipv6(text[1:-1])}]" if text.startswith("[") else _host_name(text)


def _web_port(written: str | None, scheme: str) -> int:
    if written is None:
        return 443 if scheme == "https" else 80
    port = parse_port(written)
    if port in BAD_PORTS:
        raise ValueError(f"port {port} belongs to another protocol than HTTP")
    return port


def parse_port(written: str) -> int:
    if not _PORT.fullmatch(written) or int(written) > 65_535:
        raise ValueError("a port is a number from 1 to 65535 without leading zeros")
    return int(written)


def _host_name(text: str) -> str:
    # 127.1, 0x7f.1 and 2130706433 are 127.0.0.1 to the system but a name to a reader.
    if _ENDS_IN_NUMBER.fullmatch(text):
        return _ipv4(text)
    if not _NAME.fullmatch(text) or len(text) > 253:
        raise ValueError(
            f"{text[:64]!a} is not a host: give letters, digits, hyphens, underscores and dots"
        )
    return text


def _ipv4(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ValueError(
            f"{text[:64]!a} is not an IPv4 address: write four decimal numbers, as in 192.0.2.1"
        ) from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except ValueError:
        address = None
    if address is None or address.scope_id is not None:
        raise ValueError(f"{text[:64]!a} is not an IPv6 address without a zone, as in 2001:db8::1")
    return address.compressed
