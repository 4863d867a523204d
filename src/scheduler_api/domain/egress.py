"""Which addresses may be dialled: all public ones, and those that EGRESS_ALLOW names."""

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

from scheduler_api.domain.international_url import ascii_host
from scheduler_api.domain.url import parse_port, split_host_port


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
    host, written_port = split_host_port(pattern)
    port = None if written_port is None else parse_port(written_port)
    ip = _address(host.strip("[]"))
    if ip is not None and pattern == entry:
        return _AddressRule(ip.version, int(ip), int(ip), port)
    return _HostRule(_bare(host if pattern == entry else f".{host}"), port)
