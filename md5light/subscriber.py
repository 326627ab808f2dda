"""The part of a network address that identifies one customer of the Internet."""

from __future__ import annotations

import ipaddress


def subscriber(address: str) -> str:
    """Return an IPv4 address as it is, an IPv6 address as its /64: that is one customer's.

    A text that is not an address is returned unchanged.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
