"""Network addresses, as far as they tell one customer of the Internet from another."""

from __future__ import annotations

import ipaddress


def subscriber(address: str) -> str:
    """Return an IPv4 address, or the /64 of an IPv6 one: a /64 is one customer's, or one machine's.

    What is no address is returned as it is.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    return str(parsed.ipv4_mapped or ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
