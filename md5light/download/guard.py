"""The guard: which addresses and ports a download may use.

It checks addresses and never connects. Every hop of a download asks it and connects only to the
addresses that it returned, so neither a name whose addresses change (DNS rebinding) nor a redirect
can bypass it.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from md5light.config import DownloadConfig, Network
from md5light.dial import AddressInfo
from md5light.download.urls import URL
from md5light.errors import (
    OutOfResources,
    OwnAddressesUnknown,
    PermanentFailure,
    Refused,
    TemporaryFailure,
)
from md5light.logs import Log

log = Log(__name__)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

#: the same as socket.getaddrinfo
Resolve = Callable[..., Iterable[AddressInfo]]

#: names of the machine itself, whatever they resolve to: RFC 6761, 6.3, and the names that
#: distributions put into /etc/hosts
LOCALHOST = re.compile(
    r"(.+\.)?localhost|(localhost|ip6-localhost|ip6-loopback|localhost[46])(\.localdomain[46]?)?"
)

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

#: global unicast, the only IPv6 addresses that IANA has assigned
UNICAST = ipaddress.IPv6Network("2000::/3")

#: not public, although some versions of Python say that they are (`is_global`)
SPECIAL = tuple(
    ipaddress.ip_network(network)
    for network in (
        "192.0.0.0/24",  # IETF protocol assignments, Oracle's cloud metadata among them
        "192.88.99.0/24",  # 6to4 relays, RFC 7526
        "168.63.129.16/32",  # Azure's platform
        "64:ff9b:1::/48",  # NAT64 for local use, RFC 8215
        "2001::/23",  # IETF protocol assignments, Teredo and ORCHID among them
        "2001:db8::/32",  # documentation, RFC 3849
        "2002::/16",  # 6to4, RFC 3056: IPv4 behind it
        "3fff::/20",  # documentation, RFC 9637
    )
)

#: NAT64's well-known prefix, RFC 6052: judged by the IPv4 address inside
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")

#: where the kernel lists addresses; /proc/net is missing when /proc is mounted with subset=pid
PROC_NET = Path("/proc/self/net")
#: seconds after which the list of the machine's own addresses is read again
OWN_ADDRESSES_SECONDS = 2.0


class Guard:
    """Checks ports, names and addresses against [download] allow_ports and allow_networks."""

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

    def check(self, url: URL) -> None:
        """Refuse, without a look-up, a URL that can never be allowed.

        Raises Refused with `port_not_allowed` or `address_not_allowed`.
        """
        if url.port not in self._ports:
            raise Refused("port_not_allowed", _closed_port(url))
        # A worker checks again before it connects: unknown own addresses need not refuse it here.
        with contextlib.suppress(OwnAddressesUnknown):
            if not self._may_be_allowed(url.host):
                raise Refused("address_not_allowed", _closed("The URL's host is"))

    def resolve(self, url: URL) -> list[AddressInfo]:
        """Look up the host and return its addresses, in order, when all of them are allowed.

        One address that is not allowed refuses the host. Blocks while the name servers are asked.
        """
        if url.port not in self._ports:
            raise PermanentFailure("port_not_allowed", _closed_port(url))
        try:
            return self._judged(url)
        except OwnAddressesUnknown:
            raise OutOfResources(
                "connection_failed",
                "md5light could not read the addresses of its own machine, so it connects to none.",
            ) from None

    def check_connected(self, connection: socket.socket) -> None:
        """Refuse a connection to this machine itself; this needs no list of its addresses."""
        own, peer = (
            ipaddress.ip_address(name[0].partition("%")[0])
            for name in (connection.getsockname(), connection.getpeername())
        )
        if own == peer and not self._is_opened(peer):
            raise _not_allowed([peer])

    def allows(self, address: Address) -> bool:
        """Tell whether downloads may connect to `address`: it is public, or in an allowed network.

        Raises OwnAddressesUnknown where it is public and the machine's own addresses can't be read.
        """
        meant = _unwrapped(address)
        return self._is_opened(address) or (
            _is_public(meant) and meant not in self._own_addresses()
        )

    def _is_opened(self, address: Address) -> bool:
        """Tell whether `address`, or the IPv4 address inside it, is in allow_networks."""
        forms = (address, _unwrapped(address))
        return any(form in network for form in forms for network in self._networks)

    def _may_be_allowed(self, host: str) -> bool:
        if LOCALHOST.fullmatch(host):
            return any(
                _overlap(network, loopback) for network in self._networks for loopback in LOOPBACK
            )
        address = literal(host)
        return address is None or self.allows(address)

    def _judged(self, url: URL) -> list[AddressInfo]:
        if not self._may_be_allowed(url.host):
            raise _not_allowed([])
        address = literal(url.host)
        found = self._look_up(url) if address is None else [_info(address, url.port)]
        addresses = [ipaddress.ip_address(info[4][0]) for info in found]
        if refused := [address for address in addresses if not self.allows(address)]:
            raise _not_allowed(refused)
        return found

    def _look_up(self, url: URL) -> list[AddressInfo]:
        # Always temporary: a name that is not found may be in a zone that is being repaired.
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
    """The addresses of the machine's own interfaces, read again every few seconds.

    Creating and calling it raise OwnAddressesUnknown when they can't be read: an empty list would
    allow them all.
    """

    def __init__(self, folder: Path = PROC_NET) -> None:
        self._folder = folder
        self._is_unknown = False
        self._known = self._read()
        self._until = time.monotonic() + OWN_ADDRESSES_SECONDS

    def __call__(self) -> frozenset[Address]:
        if time.monotonic() >= self._until:
            try:
                self._known = self._read()
            except OwnAddressesUnknown as error:
                if not self._is_unknown:
                    log.error("own_addresses_unknown", reason=error)
                self._is_unknown = True
                raise
            self._is_unknown = False
            self._until = time.monotonic() + OWN_ADDRESSES_SECONDS
        return self._known

    def _read(self) -> frozenset[Address]:
        if sys.platform != "linux":
            return frozenset()  # only Guard.check_connected protects them there
        try:
            return frozenset((*_ipv4_addresses(self._folder), *_ipv6_addresses(self._folder)))
        except (OSError, ValueError, IndexError) as error:
            reason = getattr(error, "strerror", None) or "not in the form that Linux writes"
            raise OwnAddressesUnknown(
                f"can't read the machine's own addresses in {self._folder}: {reason}"
            ) from None


def literal(host: str) -> Address | None:
    """Return the host of a URL as an address; None when it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _info(address: Address, port: int) -> AddressInfo:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    return family, socket.SOCK_STREAM, 0, "", (str(address), port)


def _closed_port(url: URL) -> str:
    return f"Port {url.port} is not open to downloads; see [download] allow_ports."


def _closed(what: str) -> str:
    return f"{what} not open to downloads; see [download] allow_networks."


def _not_allowed(refused: list[Address]) -> PermanentFailure:
    """Name the version of the refused addresses, but not the addresses: they may be internal."""
    kinds = sorted({address.version for address in refused})
    what = f"IPv{kinds[0]} address is" if len(kinds) == 1 else "addresses are"
    return PermanentFailure("address_not_allowed", _closed(f"The host's {what}"))


def _unwrapped(address: Address) -> Address:
    """Return the IPv4 address that a connection to an IPv6 address leads to, if any.

    ::ffff:a.b.c.d is a.b.c.d itself (RFC 4291, 2.5.5.2); NAT64 connects 64:ff9b::a.b.c.d to it (RFC
    6052).
    """
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
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
    """Tell whether the interface identifier holds an IPv4 address (RFC 5214, 6.1)."""
    return int(address) >> 32 & 0xFDFFFFFF == 0x00005EFE


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _ipv4_addresses(folder: Path) -> Iterator[Address]:
    above = ""
    for line in _lines(folder / "fib_trie"):
        if "/32 host LOCAL" in line:
            yield ipaddress.IPv4Address(above.split()[-1])
        above = line


def _ipv6_addresses(folder: Path) -> Iterator[Address]:
    try:
        lines = _lines(folder / "if_inet6")
    except FileNotFoundError:
        if _has_ipv6():
            raise
        lines = []
    for line in lines:
        yield ipaddress.IPv6Address(int(line.split()[0], 16))


def _has_ipv6() -> bool:
    """Tell whether this process can open IPv6 sockets: if not, it can reach no IPv6 address."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).close()
    except OSError as error:
        return error.errno != errno.EAFNOSUPPORT
    return True


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="ascii").splitlines()
