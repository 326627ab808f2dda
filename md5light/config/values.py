"""The types of values: how each is parsed and written.

A reader parses the text of a value; its ValueError says what is expected.
"""

from __future__ import annotations

import configparser
import dataclasses
import ipaddress
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from md5light import mailbox
from md5light.config import database_url

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: the prefix of a `host` that is the path of a socket
UNIX = "unix:"

#: bytes that the path of a socket may have (unix(7): 108 with the NUL at its end)
UNIX_PATH_BYTES = 107

#: an address literal or a name, as EHLO takes it (RFC 5321 section 4.1.1.1)
HELO_NAME = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*|\[[A-Za-z0-9.:]+\]")


@dataclasses.dataclass(frozen=True)
class Ports:
    """A set of port numbers, as ranges that include both ends."""

    ranges: tuple[tuple[int, int], ...]

    def __contains__(self, port: int) -> bool:
        return any(first <= port <= last for first, last in self.ranges)

    def __str__(self) -> str:
        return " ".join(
            str(first) if first == last else f"{first}-{last}" for first, last in self.ranges
        )


def text(value: str) -> str:
    """Read one line, possibly empty."""
    if re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError("must be one line without control characters")
    return value


def one_of(*choices: str) -> Callable[[str], str]:
    def read(value: str) -> str:
        if value not in choices:
            raise ValueError(f"must be one of: {', '.join(choices)}")
        return value

    return read


def integer(low: int, high: int) -> Callable[[str], int]:
    """Read a whole number; both ends belong to the range."""

    def read(value: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", value) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return read


def number(low: float, high: float) -> Callable[[str], float]:
    """Read a number, without an exponent; both ends belong to the range."""

    def read(value: str) -> float:
        if (
            not re.fullmatch(r"[+-]?([0-9]{1,20}(\.[0-9]*)?|\.[0-9]+)", value)
            or not low <= float(value) <= high
        ):
            raise ValueError(f"must be a number from {low:g} to {high:g}")
        return float(value)

    return read


def yes_or_no(value: str) -> bool:
    try:
        return configparser.ConfigParser.BOOLEAN_STATES[value.lower()]
    except KeyError:
        raise ValueError("must be yes or no") from None


def networks(value: str) -> tuple[Network, ...]:
    """Read networks (CIDR); an address is a network of one."""
    read = []
    for item in _items(value):
        try:
            read.append(ipaddress.ip_network(item))
        except ValueError:
            raise ValueError(
                f"must be networks such as 10.0.0.0/8 or fd00::/8; {item!r} is not one"
            ) from None
    return tuple(read)


def ports(value: str) -> Ports:
    ranges = []
    for item in _items(value):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= 65535:
            raise ValueError(
                f"must be ports from 1 to 65535 or ranges such as 8000-8999; {item!r} is neither"
            )
        ranges.append((first, last))
    if not ranges:
        raise ValueError("must name at least one port")
    return Ports(tuple(ranges))


def site_url(value: str) -> str:
    """Read the URL of a site, possibly empty; the result has no slash at its end."""
    plain = re.fullmatch("[!-~]*", value)
    if not plain or (value and not re.fullmatch(r"https?://[^/?#@]+(/[^?#]*)?", value)):
        raise ValueError("must be a URL such as https://md5.example.org")
    return value.rstrip("/")


def host(value: str) -> str:
    if not re.fullmatch(r"[^\s/@\x00-\x1f\x7f]+", value):
        raise ValueError("must be a host name or an IP address")
    return value


def is_loopback(host: str) -> bool:
    """Tell whether a host is a loopback address or localhost (RFC 6761)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def host_or_nothing(value: str) -> str:
    return host(value) if value else value


def listening_address(value: str) -> str:
    """Read a host, or `unix:` and the absolute path of a socket."""
    if not value.startswith(UNIX):
        return host(value)
    path = text(value).removeprefix(UNIX)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("must be unix: and an absolute path, such as unix:/run/md5light/http.sock")
    if len(path.encode()) > UNIX_PATH_BYTES:
        raise ValueError(f"must be a path of at most {UNIX_PATH_BYTES} bytes")
    return value


def helo_name(value: str) -> str:
    if value and not HELO_NAME.fullmatch(value):
        raise ValueError("must be a host name in ASCII or an address in brackets")
    return value


def sender(value: str) -> str:
    """Read a mail address, or `Name <address>`."""
    try:
        mailbox.parse(text(value))
    except ValueError:
        raise ValueError(
            "must be a plain mail address such as md5light@example.org, or Name <address>"
        ) from None
    return value


def sender_or_nothing(value: str) -> str:
    return sender(value) if value else value


def database(value: str) -> str:
    """Read the path of a file or the URL of a PostgreSQL database."""
    if database_url.SCHEME.match(value):
        return database_url.checked(text(value))
    if database_url.is_connection_string(value):
        raise ValueError("must be written as a URL: postgresql://USER@HOST/NAME")
    if not text(value) or "://" in value:
        raise ValueError("must be a file or postgresql://…")
    return value


def path(value: str) -> str:
    if not text(value):
        raise ValueError("must be a path")
    return value


def header(value: str) -> str:
    """Read the value of an HTTP header."""
    if not re.fullmatch(r"[\x20-\x7e]+", value):
        raise ValueError("must be printable ASCII characters")
    return value


def written(value: object) -> str:
    """Write a value so that its reader returns the same value."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(str(item) for item in value)
    if isinstance(value, float):  # never 1e-05, which the reader refuses
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    return str(value)


def absolute(value: str, folder: Path) -> str:
    """Make a path absolute, starting at `folder`; ValueError if `~USER` names no user."""
    if not value or value.startswith(database_url.PREFIX):
        return value
    try:
        return str(folder.absolute() / Path(value).expanduser())
    except RuntimeError:  # from expanduser
        raise ValueError("names the home folder of nobody on this machine") from None


def http_url(host: str, port: int) -> str:
    """Write the URL of a server, an IPv6 address in brackets."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _items(value: str) -> list[str]:
    return [item for item in re.split(r"[\s,]+", value) if item]
