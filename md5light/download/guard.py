"""The guard: which addresses and ports a download may use.

It is pure: it judges, it never connects. Whoever connects asks it for every hop and connects to the addresses it
returned, nowhere else; so neither a name that changes its mind (DNS rebinding) nor a redirect gets round it.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from md5light.config import DownloadConfig, Network
from md5light.download.urls import URL
from md5light.errors import PermanentFailure, Refused, TemporaryFailure

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: an entry of getaddrinfo: family, type, protocol, canonical name, socket address
AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]

#: the same as socket.getaddrinfo
Resolve = Callable[..., Iterable[AddressInfo]]

#: names of the machine itself, wherever they are looked up: RFC 6761, 6.3, and what distributions put into /etc/hosts
LOCALHOST = re.compile(
    r"(.+\.)?localhost|(localhost|ip6-localhost|ip6-loopback|localhost[46])(\.localdomain[46]?)?"
)

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

#: global unicast, the only IPv6 addresses that IANA has given out
UNICAST = ipaddress.IPv6Network("2000::/3")

#: what `is_global` lets pass (in this or an older Python) and we do not
SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments, Oracle's cloud metadata among them
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "168.63.129.16/32",  # Azure's platform
        "64:ff9b::/96",  # NAT64, RFC 6052: IPv4 behind it
        "64:ff9b:1::/48",  # NAT64 for local use, RFC 8215
        "2001::/23",  # IETF protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056: IPv4 behind it
        "3fff::/20",  # documentation, RFC 9637
    )
)

#: how long the list of the machine's own addresses is believed, in seconds
OWN_ADDRESSES_SECONDS = 10.0


class Guard:
    """Judges ports, names and addresses by [download] allow_ports and allow_networks."""

    def __init__(
        self,
        config: DownloadConfig,
        *,
        resolve: Resolve = socket.getaddrinfo,
        own_addresses: Callable[[], Collection[Address]] | None = None,
    ) -> None:
        self._networks = config.allow_networks
        self._ports = config.allow_ports
        self._resolve = resolve
        self._own_addresses = own_addresses or OwnAddresses()

    def check_literal(self, url: URL) -> None:
        """Refuse, without a look-up, a host that can never be allowed: raises Refused("address_not_allowed", …)."""
        if not self._may_be_allowed(url.host):
            raise Refused(
                "address_not_allowed",
                "The URL's host is not open to downloads; [download] allow_networks rules that.",
            )

    def resolve(self, url: URL) -> list[AddressInfo]:
        """Look up the host and return the addresses to connect to, in order; all of them are judged.

        One address that is not allowed refuses the name. Blocks for as long as the name servers do.
        """
        if url.port not in self._ports:
            raise PermanentFailure(
                "port_not_allowed",
                f"Port {url.port} is not open to downloads; [download] allow_ports rules that.",
            )
        if not self._may_be_allowed(url.host):
            raise _not_allowed()
        address = literal(url.host)
        found = self._look_up(url) if address is None else [_info(address, url.port)]
        if not all(self.allows(ipaddress.ip_address(info[4][0])) for info in found):
            raise _not_allowed()
        return found

    def allows(self, address: Address) -> bool:
        """Tell whether downloads may connect to `address`: it is public, or in an allowed network."""
        meant = _unwrapped(address)
        if any(form in network for form in (address, meant) for network in self._networks):
            return True
        return _is_public(meant) and meant not in self._own_addresses()

    def _may_be_allowed(self, host: str) -> bool:
        if LOCALHOST.fullmatch(host):
            return any(
                _overlap(network, loopback) for network in self._networks for loopback in LOOPBACK
            )
        address = literal(host)
        return address is None or self.allows(address)

    def _look_up(self, url: URL) -> list[AddressInfo]:
        # Always worth another attempt: a name that does not exist now may be one whose zone is being mended.
        try:
            found = list(self._resolve(url.host, url.port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError):
            raise TemporaryFailure(
                "name_not_found", "The host's name could not be found."
            ) from None
        internet = [info for info in found if info[0] in (socket.AF_INET, socket.AF_INET6)]
        if not internet:
            raise TemporaryFailure("name_not_found", "The host's name has no address.")
        return internet


class OwnAddresses:
    """The addresses of the machine's own interfaces, public ones included, read anew every few seconds."""

    def __init__(self) -> None:
        self._known: frozenset[Address] = frozenset()
        self._until = 0.0

    def __call__(self) -> frozenset[Address]:
        now = time.monotonic()
        if now >= self._until:
            self._known = frozenset(_interface_addresses())
            self._until = now + OWN_ADDRESSES_SECONDS
        return self._known


def literal(host: str) -> Address | None:
    """Return the address that a URL's host is, None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _info(address: Address, port: int) -> AddressInfo:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, socket.SOCK_STREAM, 0, "", (str(address), port)


def _not_allowed() -> PermanentFailure:
    return PermanentFailure(
        "address_not_allowed",
        "The host's address is not open to downloads; [download] allow_networks rules that.",
    )


def _unwrapped(address: Address) -> Address:
    """Take an IPv4 address out of its IPv6 form: connecting to ::ffff:a.b.c.d is connecting to a.b.c.d."""
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: Address) -> bool:
    if address.version == 6 and (address not in UNICAST or _is_isatap(address)):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not any(address in network for network in SPECIAL)
    )


def _is_isatap(address: Address) -> bool:
    """Tell whether an IPv4 address stands in the interface identifier (RFC 5214, 6.1)."""
    return int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _interface_addresses() -> Iterable[Address]:
    """Read the addresses that the kernel takes for its own (Linux; elsewhere there are none to be read)."""
    for line in _lines("/proc/net/if_inet6"):
        yield ipaddress.IPv6Address(int(line.split()[0], 16))
    above = ""
    for line in _lines("/proc/net/fib_trie"):
        if "/32 host LOCAL" in line:
            yield ipaddress.IPv4Address(above.split()[-1])
        above = line


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except OSError:
        return []
