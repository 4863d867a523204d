"""Addresses that may be connected to, and the entries of EGRESS_ALLOW."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler_api.domain.egress import EgressRules
from scheduler_api.domain.url import parse_url

NONE = EgressRules()


def words(text: str) -> list[str]:
    return text.split()


# Allowed by an exact address or a network in the setting, but not by `private` or a host.
RESERVED = words("""0.0.0.0/8 192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 198.18.0.0/15 198.51.100.0/24
    203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 ::/128 ::2/127 ::/96 64:ff9b::/96 64:ff9b:1::/48
    100::/64 5f00::/16 fec0::/10 ff00::/8 4000::/2 8000::/2 c000::/3 e000::/4 f000::/5 f800::/6
    2001::/23 2001:db8::/32 2002::/16 3fff::/20 ::/3 8000::/1""")
LOOPBACK = words("127.0.0.0/8 ::1/128")
PRIVATE = words("10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 100.64.0.0/10 fc00::/7")
METADATA = words("""169.254.0.0/16 168.63.129.16/32 100.100.100.200/32 fe80::/10 fd00:ec2::254/128
    fd20:ce::254/128""")

# Public addresses beside the networks above.
PUBLIC = words("""1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255
    128.0.0.0 168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0
    191.255.255.255 192.0.1.0 192.0.1.255 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255
    192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0
    223.255.255.255 8.8.8.8 2000:: 2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2001:200::
    2001:db7:ffff:ffff:ffff:ffff:ffff:ffff 2001:db9:: 2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    2003:: 3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff 3fff:1000::
    3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2606:4700::1111""")


def within(networks: list[str]) -> list[str]:
    """The first, the last and one inside each network."""
    found: list[str] = []
    for network in map(ip_network, networks):
        middle = int(network.network_address) + network.num_addresses // 2
        inside = type(network.network_address)(middle)
        found += map(str, (network[0], inside, network[-1]))
    return list(dict.fromkeys(found))


def beside(networks: list[str]) -> list[str]:
    """Both neighbours of each network."""
    found: set[str] = set()
    for network in map(ip_network, networks):
        kind, top = type(network[0]), 2**network.max_prefixlen - 1
        around = (int(network[0]) - 1, int(network[-1]) + 1)
        found |= {str(kind(number)) for number in around if 0 <= number <= top}
    return sorted(found)


def expected_words(address: str) -> tuple[str, ...]:
    """What a refusal of this address says, by the lists above; empty for a public one."""
    tiers = [
        (METADATA, ("link-local", "cloud metadata")),
        (LOOPBACK, ("a loopback address",)),
        (PRIVATE, ("in a private range",)),
        (RESERVED, ("in a reserved range",)),
    ]
    ip = ip_address(address)
    found = (said for tier, said in tiers if any(ip in ip_network(network) for network in tier))
    return next(found, ())


def mapped(addresses: list[str]) -> list[str]:
    return [f"::ffff:{address}" for address in addresses if "." in address]


# Addresses


@pytest.mark.parametrize("address", PUBLIC + mapped(PUBLIC))
def test_refusal_is_none_for_a_public_address(address: str) -> None:
    assert NONE.refusal(address, 443, "h.example") is None


@pytest.mark.parametrize("address", within(RESERVED + LOOPBACK + PRIVATE + METADATA))
def test_refusal_names_the_kind_of_a_blocked_address_also_inside_ipv6(address: str) -> None:
    for spelling in [address, *mapped([address])]:
        refusal = NONE.refusal(spelling, 443, spelling)
        assert refusal is not None
        assert any(word in refusal for word in expected_words(address))
        assert "EGRESS_ALLOW" in refusal


@pytest.mark.parametrize("address", beside(RESERVED + LOOPBACK + PRIVATE + METADATA))
def test_refusal_of_an_address_beside_a_blocked_network_depends_on_its_own_network(
    address: str,
) -> None:
    refusal, said = NONE.refusal(address, 443, address), expected_words(address)
    assert (refusal is None) == (address in PUBLIC) == (not said)
    assert refusal is None or any(word in refusal for word in said)


@pytest.mark.parametrize("address", ["", "h", "10.0.0", "010.0.0.1", "1.2.3.4.5", "\ud800", "::g"])
def test_refusal_of_text_that_is_not_an_address(address: str) -> None:
    refusal = EgressRules.parse("0.0.0.0/0, ::/0, private").refusal(address, 443, "h")
    assert refusal == f"{address!a} is not an IP address; no connection is made"


@pytest.mark.parametrize("zone", ["%lo", "%1", "%25eth0"])
def test_refusal_ignores_the_zone_of_an_address(zone: str) -> None:
    assert "loopback" in str(NONE.refusal(f"::1{zone}", 443, "h"))
    assert "link-local" in str(NONE.refusal(f"fe80::1{zone}", 443, "h"))


def test_refusal_says_what_was_requested_what_it_is_and_what_allows_it() -> None:
    assert (
        NONE.refusal("10.0.0.5", 443, "10.0.0.5")
        == "10.0.0.5 is in a private range; to allow it, add it to EGRESS_ALLOW"
    )
    assert (
        NONE.refusal("10.0.0.5", 443, "")
        == "10.0.0.5 is in a private range; to allow it, add it to EGRESS_ALLOW"
    )
    assert (
        NONE.refusal("10.0.0.5", 443, "n8n")
        == "n8n resolves to 10.0.0.5, which is in a private range; "
        "to allow it, add it to EGRESS_ALLOW"
    )
    assert (
        NONE.refusal("169.254.169.254", 80, "169.254.169.254")
        == "169.254.169.254 is a link-local or metadata address; "
        "to allow it, add this exact address to EGRESS_ALLOW"
    )


@given(st.ip_addresses(v=4))
def test_refusal_of_an_ipv4_address_is_the_same_inside_ipv6(address: object) -> None:
    bare = NONE.refusal(str(address), 443, "h")
    wrapped = NONE.refusal(f"::ffff:{address}", 443, "h")
    assert (bare is None) == (wrapped is None)


@given(st.ip_addresses(v=6))
def test_refusal_of_ipv6_addresses_outside_of_2000_3(address: object) -> None:
    number = int(ip_address(str(address)))
    if number >> 125 != 1 and number >> 32 != 0xFFFF:
        assert NONE.refusal(str(address), 443, "h") is not None


# Rules


@pytest.mark.parametrize(
    ("allow", "address", "port", "host"),
    [
        *[("private", address, 443, "h") for address in within(PRIVATE)],
        *[(f"{address}", address, 443, "h") for address in within(METADATA + RESERVED + LOOPBACK)],
        ("PRIVATE", "10.0.0.1", 443, "h"),
        ("10.0.0.0/8", "10.255.255.255", 443, "h"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", 443, "h"),
        ("fd00::/8", "fd12::1", 443, "h"),
        ("10.0.0.5", "10.0.0.5", 443, "h"),
        ("::ffff:10.0.0.5", "10.0.0.5", 443, "h"),
        ("10.0.0.5:5678", "10.0.0.5", 5678, "h"),
        ("[fd00::1]:5678", "fd00::1", 5678, "h"),
        ("[fd00::1]", "fd00::1", 5678, "h"),
        ("fd00:0::1", "fd00::1", 5678, "h"),
        ("fe80::1", "fe80::1%2", 443, "h"),
        ("127.0.0.0/8", "127.0.0.1", 443, "h"),
        ("192.0.2.0/24", "192.0.2.1", 443, "h"),
        ("64:ff9b::/96", "64:ff9b::808:808", 443, "h"),
        ("0.0.0.0/0", "192.0.2.1", 443, "h"),
        ("169.254.169.254", "169.254.169.254", 80, "h"),
        ("169.254.169.254/32", "169.254.169.254", 80, "h"),
        ("fd00:ec2::254/128", "fd00:ec2::254", 80, "h"),
        ("n8n", "10.0.0.1", 5678, "n8n"),
        ("n8n", "127.0.0.1", 5678, "n8n"),
        ("n8n", "::1", 5678, "N8N."),
        ("N8N.", "10.0.0.1", 5678, "n8n"),
        ("n8n:5678", "10.0.0.1", 5678, "n8n"),
        ("localhost", "127.0.0.1", 80, "localhost"),
        ("*.svc.cluster.local", "10.0.0.1", 80, "n8n.prod.svc.cluster.local"),
        ("*.svc:80", "10.0.0.1", 80, "n8n.svc"),
        ("a, ,n8n,, 192.0.2.0/24 ,", "10.0.0.1", 80, "n8n"),
    ],
)
def test_egress_rules_allow_what_an_entry_names(
    allow: str, address: str, port: int, host: str
) -> None:
    assert NONE.refusal(address, port, host) is not None
    assert EgressRules.parse(allow).refusal(address, port, host) is None


@pytest.mark.parametrize(
    ("allow", "address", "port", "host"),
    [
        *[("private", address, 443, "h") for address in within(RESERVED + LOOPBACK + METADATA)],
        *[("h, *.h", address, 443, "h") for address in within(RESERVED + METADATA)],
        *[("0.0.0.0/0, ::/0", address, 443, "h") for address in within(METADATA)],
        ("::/0", "10.0.0.1", 443, "h"),
        ("0.0.0.0/0", "fd00::1", 443, "h"),
        ("169.254.0.0/16", "169.254.169.254", 80, "h"),
        ("169.254.169.254/31", "169.254.169.254", 80, "h"),
        ("fc00::/7", "fd00:ec2::254", 80, "h"),
        ("100.64.0.0/10", "100.100.100.200", 80, "h"),
        ("10.0.0.5", "10.0.0.4", 443, "h"),
        ("10.0.0.5", "10.0.0.6", 443, "h"),
        ("10.0.0.5:5678", "10.0.0.5", 5679, "h"),
        ("[fd00::1]:5678", "fd00::1", 80, "h"),
        ("n8n", "10.0.0.1", 80, "evil"),
        ("n8n", "10.0.0.1", 80, "evil.n8n"),
        ("n8n", "10.0.0.1", 80, ""),
        ("n8n:5678", "10.0.0.1", 80, "n8n"),
        ("*.svc", "10.0.0.1", 80, "svc"),
        ("*.svc", "10.0.0.1", 80, "evilsvc"),
        ("*.svc", "10.0.0.1", 80, "n8n.svc.evil"),
        ("*.svc:80", "10.0.0.1", 81, "n8n.svc"),
        ("", "10.0.0.1", 80, "h"),
    ],
)
def test_egress_rules_allow_nothing_that_no_entry_names(
    allow: str, address: str, port: int, host: str
) -> None:
    assert EgressRules.parse(allow).refusal(address, port, host) is not None


@pytest.mark.parametrize(
    "entry",
    [
        *("10.0.0.1/24", "10.0.0.0/33", "fd00::/129", "10.0.0.0/8:80", "n8n/8", "http://n8n", "/"),
        *("::ffff:10.0.0.0/104", "::ffff:0:0/96", "fe80::1%lo", "[fe80::1%lo]", "[10.0.0.1]"),
        *("[n8n]", "[::1", "::1]", "[::1]80", "n8n:0", "n8n:65536", "n8n:x", "n8n:", "10.0.0.1:"),
        *(
            "*",
            "*.",
            "*n8n",
            "n8n.*",
            "a*b",
            "127.1",
            "0x7f.1",
            "u@n8n",
            "n 8n",
            "\u2603",
            "\ud800",
        ),
    ],
)
def test_egress_rules_name_the_invalid_entry(entry: str) -> None:
    with pytest.raises(ValueError, match="in EGRESS_ALLOW is not a network") as caught:
        EgressRules.parse(f"private, {entry}")
    assert str(caught.value).startswith(ascii(entry))


@given(st.text() | st.text("0123456789.:/[]*,abf ", max_size=30))
def test_egress_rules_of_any_text_are_valid_or_a_value_error(text: str) -> None:
    try:
        rules = EgressRules.parse(text)
    except ValueError:
        return
    assert rules.refusal("169.254.0.1", 80, "h") is not None or "169.254.0.1" in text


@pytest.mark.parametrize(
    ("url", "refused"),
    [
        ("http://10.0.0.5/", "10.0.0.5 is in a private range"),
        ("http://[::1]:5678/", "::1 is a loopback address"),
        ("http://[::ffff:10.0.0.5]/", "in a private range"),
        ("http://169.254.169.254/", "metadata"),
        ("http://localhost/", "localhost resolves to 127.0.0.1, which is a loopback address"),
        ("http://LOCALHOST.:8000/", "a loopback address"),
        ("http://a.localhost/", "a loopback address"),
        ("http://8.8.8.8/", None),
        ("http://[2606:4700::1111]/", None),
        ("http://n8n/", None),
        ("http://notlocalhost/", None),
        ("http://localhost.example/", None),
    ],
)
def test_refusal_of_literal_refuses_addresses_and_localhost_but_no_other_name(
    url: str, refused: str | None
) -> None:
    parsed = parse_url(url)
    refusal = NONE.refusal_of_literal(parsed.host, parsed.port)
    assert refusal is None if refused is None else refused in str(refusal)


@pytest.mark.parametrize("allow", ["localhost", "127.0.0.1", "127.0.0.0/8", "localhost:8000"])
def test_refusal_of_literal_allows_localhost_by_name_address_or_network(allow: str) -> None:
    rules = EgressRules.parse(allow)
    assert rules.refusal_of_literal("localhost", 8000) is None
    assert EgressRules.parse("private").refusal_of_literal("localhost", 80)
