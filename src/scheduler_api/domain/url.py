"""Which URLs may be called and which addresses dialled; asked by the API, settings and egress."""

import re
from enum import Enum
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Self

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
    host, written_port = _host_and_port(ascii_host(text).lower())
    if written_port is None:
        return destination_name(host)
    return destination_name(f"{host}:{_web_port(written_port, 'http')}")


@lru_cache(maxsize=4096)
def destination_name(authority: str) -> str:
    """The one name of all authorities that lead to the same receiver, of canonical ones.

    The ports of http and https are the host's own, whatever the scheme, and a final dot does not
    make another host. lua/prelude.lua names the destinations of stored messages by the same rule.
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
    host, written_port = _host_and_port(given)
    port = _web_port(written_port, scheme)
    authority = host if written_port is None else f"{host}:{written_port}"
    return authority, host.strip("[]"), port


def _host_and_port(authority: str) -> tuple[str, str | None]:
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
    port = _port(written)
    if port in BAD_PORTS:
        raise ValueError(f"port {port} belongs to another protocol than HTTP")
    return port


def _port(written: str) -> int:
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


class _Tier(Enum):
    """How an address that is not public may be opened."""

    PRIVATE = "address, network, host or `private`"
    LOOPBACK = "address, network or host"
    RESERVED = "address or network"
    GUARDED = "address"


class _Closed(msgspec.Struct, frozen=True):
    """A network that is not dialled unless a rule opens it."""

    low: int  # first address, as a number
    high: int  # last address, as a number
    tier: _Tier  # what opens it
    what: str  # completes "10.0.0.5 is …"


def _closed(tier: _Tier, what: str, networks: str) -> list[_Closed]:
    ranges = map(_range, map(ip_network, networks.split()))
    return [_Closed(low, high, tier, what) for low, high in ranges]


def _range(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


# Our own table: `ipaddress.is_global` calls NAT64, 6to4, multicast and ::127.0.0.1 public.
# The first row that holds an address counts, so single addresses come before their networks.
_CLOSED = {
    4: [
        *_closed(_Tier.GUARDED, "a cloud metadata address", "168.63.129.16 100.100.100.200"),
        *_closed(_Tier.GUARDED, "a link-local or metadata address", "169.254.0.0/16"),
        *_closed(_Tier.LOOPBACK, "a loopback address", "127.0.0.0/8"),
        *_closed(
            _Tier.PRIVATE,
            "in a private range",
            "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10",
        ),
        *_closed(
            _Tier.RESERVED,
            "in a reserved range",
            "0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 "
            "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4",
        ),
    ],
    6: [
        *_closed(_Tier.GUARDED, "a cloud metadata address", "fd00:ec2::254 fd20:ce::254"),
        *_closed(_Tier.GUARDED, "a link-local address", "fe80::/10"),
        *_closed(_Tier.LOOPBACK, "a loopback address", "::1"),
        *_closed(_Tier.PRIVATE, "in a private range", "fc00::/7"),
        # The last three are all that is outside 2000::/3.
        *_closed(
            _Tier.RESERVED,
            "in a reserved range",
            "2001::/23 2001:db8::/32 2002::/16 3fff::/20 ::/3 4000::/2 8000::/1",
        ),
    ],
}


class _AddressRule(msgspec.Struct, frozen=True):
    """An entry of EGRESS_ALLOW that names addresses."""

    version: int  # 4 or 6
    low: int  # first address, as a number
    high: int  # last address, as a number
    port: int | None = None  # the only port it opens; None: all


class _HostRule(msgspec.Struct, frozen=True):
    """An entry of EGRESS_ALLOW that names hosts."""

    name: str  # in lower case without a final dot; `.suffix` for all names below a suffix
    port: int | None = None  # the only port it opens; None: all


class EgressRules(msgspec.Struct, frozen=True):
    """Which addresses beside the public ones may be dialled: the setting EGRESS_ALLOW."""

    private: bool = False  # whether all private ranges are open
    addresses: tuple[_AddressRule, ...] = ()  # what is open by address
    hosts: tuple[_HostRule, ...] = ()  # what is open by name

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a comma list of networks, addresses, hosts, `*.suffix` (each but a network may have
        `:port`) and `private`. ValueError names the bad entry."""
        entries = [entry for part in text.split(",") if (entry := part.strip())]
        rules = [_rule(entry) for entry in entries if entry.lower() != "private"]
        return cls(
            private=len(rules) < len(entries),
            addresses=tuple(rule for rule in rules if isinstance(rule, _AddressRule)),
            hosts=tuple(rule for rule in rules if isinstance(rule, _HostRule)),
        )

    def refusal(self, address: str, port: int, host: str) -> str | None:
        """Why this address must not be dialled for the name `host`; None if it may be."""
        ip = _address(address)
        if ip is None:
            return f"{address!a} is not an IP address, so it is not dialled"
        number = int(ip)
        closed = next((row for row in _CLOSED[ip.version] if row.low <= number <= row.high), None)
        if closed is None or self._opens(closed.tier, ip, port, host):
            return None
        return _sentence(closed, address, host)

    def refusal_of_literal(self, host: str, port: int) -> str | None:
        """What `refusal` will say, as far as it is known before the host's name is resolved."""
        name = _bare(host)
        if name == "localhost" or name.endswith(".localhost"):
            return self.refusal("127.0.0.1", port, host)
        # A name never looks like this: `parse_url` refuses names that end in a number.
        if ":" in name or not name.strip("0123456789."):
            return self.refusal(host, port, host)
        return None

    def _opens(self, tier: _Tier, ip: IPv4Address | IPv6Address, port: int, host: str) -> bool:
        if self._opens_address(tier, ip, port):
            return True
        if tier is _Tier.PRIVATE and self.private:
            return True
        return tier in (_Tier.PRIVATE, _Tier.LOOPBACK) and self._opens_host(host, port)

    def _opens_address(self, tier: _Tier, ip: IPv4Address | IPv6Address, port: int) -> bool:
        number = int(ip)
        return any(
            rule.version == ip.version
            and rule.low <= number <= rule.high
            and rule.port in (None, port)
            # A wide network is no word about the metadata address that happens to lie in it.
            and (tier is not _Tier.GUARDED or rule.low == rule.high)
            for rule in self.addresses
        )

    def _opens_host(self, host: str, port: int) -> bool:
        name = _bare(host)
        return any(
            (name.endswith(rule.name) if rule.name.startswith(".") else name == rule.name)
            and rule.port in (None, port)
            for rule in self.hosts
        )


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address as it is dialled: without its zone, and IPv4 where IPv6 only wraps it."""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _bare(host: str) -> str:
    return host.lower().removesuffix(".")


def _sentence(closed: _Closed, address: str, host: str) -> str:
    who = address if host in ("", address) else f"{host} resolves to {address}, which"
    if closed.tier is _Tier.GUARDED:
        return f"{who} is {closed.what}; only that exact address in EGRESS_ALLOW opens it"
    return f"{who} is {closed.what}; add it to EGRESS_ALLOW"


def _rule(entry: str) -> _AddressRule | _HostRule:
    try:
        encoded = ascii_host(entry).lower()
        return _network_rule(encoded) if "/" in encoded else _place_rule(encoded)
    except ValueError as error:
        raise ValueError(
            f"{entry!a} in EGRESS_ALLOW is no network, address, host, *.suffix or private: {error}"
        ) from None


def _network_rule(entry: str) -> _AddressRule:
    network = ip_network(entry)
    low, high = _range(network)
    if network.version == 6 and IPv6Address(high).ipv4_mapped:
        raise ValueError("write an IPv4 network as IPv4")
    return _AddressRule(network.version, low, high)


def _place_rule(entry: str) -> _AddressRule | _HostRule:
    # An IPv6 address needs its brackets only where a port follows.
    if entry.count(":") > 1 and not entry.startswith("["):
        entry = f"[{entry}]"
    pattern = entry.removeprefix("*.")
    host, written_port = _host_and_port(pattern)
    port = None if written_port is None else _port(written_port)
    ip = _address(host.strip("[]"))
    if ip is not None and pattern == entry:
        return _AddressRule(ip.version, int(ip), int(ip), port)
    return _HostRule(_bare(host if pattern == entry else f".{host}"), port)
