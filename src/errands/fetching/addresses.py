"""Which IP addresses belong to the public internet, and the one form in which each is written."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

# The IANA special-purpose registries (RFC 6890 and later), written out: the standard library's own list
# differs between Python versions.
_CLOSED_4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, and the metadata service of most clouds
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.31.196.0/24",  # AS112
        "192.52.193.0/24",  # AMT
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "192.175.48.0/24",  # AS112
        "198.18.0.0/15",  # benchmarking
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Of IPv6 only global unicast is public. IPv4-mapped addresses and NAT64 lie outside it: they are other ways
# to write an IPv4 address, which whoever means it can write as such.
_OPEN_6 = IPv6Network("2000::/3")
_CLOSED_6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # Teredo, ORCHID, benchmarking
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",  # AS112
        "3ffe::/16",  # 6bone, given back
        "3fff::/20",  # documentation
    )
)
# ISATAP (RFC 5214) has an IPv4 address, private as a rule, in the last 32 bits behind these.
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})

# A last label that is a number makes a host an IPv4 address (WHATWG URL, 3.5): 2130706433, 0x7f.1, 0177.0.0.1
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_NUMBER = re.compile(r"0x(?P<hex>[0-9a-f]*)|0(?P<octal>[0-7]+)|(?P<decimal>0|[1-9][0-9]*)")


def is_public(address: Address) -> bool:
    """Whether `address` belongs to the public internet and to one host in it."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_4)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP or address.scope_id:
        return False
    return address in _OPEN_6 and not any(address in network for network in _CLOSED_6)


def literal(host: str) -> Address | None:
    """The address that `host` is, however it is written; None for a name.

    IPv4 addresses are read as browsers and the system's resolver read them: one to four numbers, decimal,
    octal or hexadecimal, of which the last fills what is left.

    Raises:
        ValueError: it is no name, and no address either: 1.2.3.4.5, 256.1.1.1, an address with a zone.
    """
    if ":" in host:
        if "%" in host:
            raise ValueError("an address with a zone belongs to one machine's network card")
        return ip_address(host)
    return _ipv4(host) if _ENDS_IN_NUMBER.fullmatch(host) else None


def _ipv4(host: str) -> IPv4Address:
    numbers = [_number(part) for part in host.split(".")]
    *first, last = numbers
    if len(numbers) > 4 or any(number > 255 for number in first) or last >= 256 ** (5 - len(numbers)):
        raise ValueError("more than an IPv4 address holds")
    return IPv4Address(sum(number << 8 * (3 - place) for place, number in enumerate(first)) + last)


def _number(part: str) -> int:
    found = _NUMBER.fullmatch(part) if len(part) <= 16 else None
    if found is None:
        raise ValueError(f"{part[:20]!r} is not a number")
    if found["hex"] is not None:
        return int(found["hex"] or "0", 16)
    return int(found["octal"], 8) if found["octal"] is not None else int(found["decimal"])
