"""Addresses that may be connected to: all public ones, and those that EGRESS_ALLOW names."""

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
from typing import Final, Self

import msgspec

from scheduler_api.domain.international_url import ascii_host
from scheduler_api.domain.url import parse_port, split_host_port


class _Tier(Enum):
    """Which entries of EGRESS_ALLOW allow an address that is not public."""

    PRIVATE = "address, network, host or `private`"
    LOOPBACK = "address, network or host"
    RESERVED = "address or network"
    METADATA = "address"


class _BlockedNetwork(msgspec.Struct, frozen=True):
    """A network that is blocked unless a rule allows it."""

    low: int  # first address, as a number
    high: int  # last address, as a number
    tier: _Tier  # what allows it
    what: str  # completes "10.0.0.5 is …"


def _blocked(tier: _Tier, what: str, networks: str) -> list[_BlockedNetwork]:
    ranges = map(_range, map(ip_network, networks.split()))
    return [_BlockedNetwork(low, high, tier, what) for low, high in ranges]


def _range(network: IPv4Network | IPv6Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


# Not `ipaddress.is_global`, which takes NAT64, 6to4, multicast and ::127.0.0.1 for public.
# The first row that contains an address counts: single addresses come before their networks.
_BLOCKED: Final = {
    4: [
        *_blocked(_Tier.METADATA, "a cloud metadata address", "168.63.129.16 100.100.100.200"),
        *_blocked(_Tier.METADATA, "a link-local or metadata address", "169.254.0.0/16"),
        *_blocked(_Tier.LOOPBACK, "a loopback address", "127.0.0.0/8"),
        *_blocked(
            _Tier.PRIVATE,
            "in a private range",
            "10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10",
        ),
        *_blocked(
            _Tier.RESERVED,
            "in a reserved range",
            "0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24 "
            "203.0.113.0/24 224.0.0.0/4 240.0.0.0/4",
        ),
    ],
    6: [
        *_blocked(_Tier.METADATA, "a cloud metadata address", "fd00:ec2::254 fd20:ce::254"),
        *_blocked(_Tier.METADATA, "a link-local address", "fe80::/10"),
        *_blocked(_Tier.LOOPBACK, "a loopback address", "::1"),
        *_blocked(_Tier.PRIVATE, "in a private range", "fc00::/7"),
        # The last three are everything outside of 2000::/3.
        *_blocked(
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
    port: int | None = None  # the only port that it allows; None: all


class _HostRule(msgspec.Struct, frozen=True):
    """An entry of EGRESS_ALLOW that names hosts."""

    name: str  # lower case, without a final dot; `.suffix`: all names below it
    port: int | None = None  # the only port that it allows; None: all


class EgressRules(msgspec.Struct, frozen=True):
    """The setting EGRESS_ALLOW: addresses that may be connected to beside the public ones."""

    private: bool = False  # whether all private ranges are allowed
    addresses: tuple[_AddressRule, ...] = ()  # allowed by address
    hosts: tuple[_HostRule, ...] = ()  # allowed by name

    @classmethod
    def parse(cls, text: str) -> Self:
        """From a comma list of networks, addresses, hosts, `*.suffix` and `private`.

        All but networks may have a `:port`. Raises: ValueError, which names the invalid entry.
        """
        entries = [entry for part in text.split(",") if (entry := part.strip())]
        rules = [_rule(entry) for entry in entries if entry.lower() != "private"]
        return cls(
            private=len(rules) < len(entries),
            addresses=tuple(rule for rule in rules if isinstance(rule, _AddressRule)),
            hosts=tuple(rule for rule in rules if isinstance(rule, _HostRule)),
        )

    def refusal(self, address: str, port: int, host: str) -> str | None:
        """Why no connection to this address may be made for the host `host`; None: it may."""
        ip = _address(address)
        if ip is None:
            return f"{address!a} is not an IP address; no connection is made"
        number = int(ip)
        found = next((row for row in _BLOCKED[ip.version] if row.low <= number <= row.high), None)
        if found is None or self._allows(found.tier, ip, port, host):
            return None
        return _reason(found, address, host)

    def refusal_of_literal(self, host: str, port: int) -> str | None:
        """`refusal` for what is known without DNS: addresses, and the names of this machine."""
        name = _canonical_name(host)
        if name == "localhost" or name.endswith(".localhost"):
            return self.refusal("127.0.0.1", port, host)
        # No name looks like this: `parse_url` refuses names that end in a number.
        if ":" in name or not name.strip("0123456789."):
            return self.refusal(host, port, host)
        return None

    def _allows(self, tier: _Tier, ip: IPv4Address | IPv6Address, port: int, host: str) -> bool:
        if self._allows_address(tier, ip, port):
            return True
        if tier is _Tier.PRIVATE and self.private:
            return True
        return tier in (_Tier.PRIVATE, _Tier.LOOPBACK) and self._allows_host(host, port)

    def _allows_address(self, tier: _Tier, ip: IPv4Address | IPv6Address, port: int) -> bool:
        number = int(ip)
        return any(
            rule.version == ip.version
            and rule.low <= number <= rule.high
            and rule.port in (None, port)
            # A network in the setting does not mean the metadata address inside of it.
            and (tier is not _Tier.METADATA or rule.low == rule.high)
            for rule in self.addresses
        )

    def _allows_host(self, host: str, port: int) -> bool:
        name = _canonical_name(host)
        return any(
            (name.endswith(rule.name) if rule.name.startswith(".") else name == rule.name)
            and rule.port in (None, port)
            for rule in self.hosts
        )


@lru_cache(maxsize=4096)
def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address without its zone, and as IPv4 if IPv6 only wraps it."""
    try:
        ip = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _canonical_name(host: str) -> str:
    return host.lower().removesuffix(".")


def _reason(network: _BlockedNetwork, address: str, host: str) -> str:
    who = address if host in ("", address) else f"{host} resolves to {address}, which"
    if network.tier is _Tier.METADATA:
        return f"{who} is {network.what}; to allow it, add this exact address to EGRESS_ALLOW"
    return f"{who} is {network.what}; to allow it, add it to EGRESS_ALLOW"


def _rule(entry: str) -> _AddressRule | _HostRule:
    try:
        if "://" in entry:
            raise ValueError("write HOST or HOST:PORT, without http://")
        encoded = ascii_host(entry).lower()
        return _network_rule(encoded) if "/" in encoded else _host_rule(encoded)
    except ValueError as error:
        raise ValueError(
            f"{entry!a} in EGRESS_ALLOW is not a network, address, host, *.suffix or private: "
            f"{error}"
        ) from None


def _network_rule(entry: str) -> _AddressRule:
    network = ip_network(entry)
    low, high = _range(network)
    if network.version == 6 and IPv6Address(high).ipv4_mapped:
        raise ValueError("write an IPv4 network in IPv4 form")
    return _AddressRule(network.version, low, high)


def _host_rule(entry: str) -> _AddressRule | _HostRule:
    # An IPv6 address needs brackets only before a port.
    if entry.count(":") > 1 and not entry.startswith("["):
        entry = f"[{entry}]"
    pattern = entry.removeprefix("*.")
    host, written_port = split_host_port(pattern)
    port = None if written_port is None else parse_port(written_port)
    ip = _address(host.strip("[]"))
    if ip is not None and pattern == entry:
        return _AddressRule(ip.version, int(ip), int(ip), port)
    return _HostRule(_canonical_name(host if pattern == entry else f".{host}"), port)
