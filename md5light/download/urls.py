"""The one parser of URLs, for submitted URLs and for redirects.

Two parsers that read the same text differently would be a way around the guard. So a URL is parsed
once, and the same parts are checked, connected to and sent.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote

import idna

from md5light.errors import Refused

#: the longest URL that may be submitted, in characters (RFC 9110, 4.1 asks for 8,000 at least)
MAX_CHARACTERS = 8192
#: the longest URL of a redirect: signed ones are longer than those that people submit
MAX_REDIRECT_CHARACTERS = 32768

DEFAULT_PORTS = {"http": 80, "https": 443}

#: scheme, authority, path, query; ASCII, since in Unicode ſ matches s
ABSOLUTE = re.compile(r"(https?)://([^/?#]*)([^?#]*)(\?[^#]*)?(?:#.*)?", re.IGNORECASE | re.ASCII)
#: the Location of a redirect: scheme and host, if any, and the rest
LOCATION = re.compile(rb"\A((?:(?:https?:)?//[^/?#]*)?)(.*)\Z", re.IGNORECASE | re.DOTALL)

#: invisible characters that Unicode counts neither as spaces nor as format characters: fillers, the
#: grapheme joiner, the Braille blank, the rest of the plane of tags
INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180e\u2800\u3164\uffa0"
    "\U000e0000-\U000e00ff\U000e01f0-\U000e0fff]"
)
#: variation selectors: Mongolian, emoji and ideographs are written with them. A path or query may
#: contain them; in a host they would make two names look alike
SELECTORS = re.compile("[\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
#: zero-width joiners, which Unicode counts as format characters; Persian is written with them. IDNA
#: rules where a host may contain them (RFC 5892, appendix A)
JOINERS = "\u200c\u200d"
#: categories of Unicode whose characters a URL must not contain
UNSEEN = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Cs": "half a character (a surrogate)",
    "Zl": "a line break",
    "Zp": "a line break",
    "Zs": "a space",
}


class URL(NamedTuple):
    """An absolute http or https URL, taken apart and normalised."""

    scheme: str
    #: lower case, IDNA (RFC 5891), or an address in its usual spelling, IPv6 without brackets
    host: str
    port: int
    #: path and query as sent on the wire, never empty
    target: str

    @property
    def netloc(self) -> str:
        """Host and, unless it is the scheme's own, port, as in the Host header (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def text(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.target}"

    def __str__(self) -> str:
        return self.text


def parse(text: str) -> URL:
    """Parse an absolute URL (RFC 3986), or raise Refused("invalid_url", …) that says why not.

    The path is sent as given, with the three changes that all clients make: dot segments are
    resolved, characters outside ASCII are percent-encoded as UTF-8, the fragment is dropped.
    """
    _check_length(text, MAX_CHARACTERS)
    if "\\" in text:
        raise _refused("The URL contains a backslash.")
    return _parse(text)


def join(base: URL, location: bytes) -> URL:
    """Resolve the Location of a redirect (RFC 3986, 5.2); raises Refused as `parse` does."""
    reference = _location(location)
    if not reference or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", reference):
        absolute = reference
    elif reference.startswith("//"):
        absolute = f"{base.scheme}:{reference}"
    else:
        path = base.target.partition("?")[0]
        start = {"/": "", "?": path, "#": base.target}.get(
            reference[0], path[: path.rindex("/") + 1]
        )
        absolute = f"{base.scheme}://{base.netloc}{start}{reference}"
    _check_length(absolute, MAX_REDIRECT_CHARACTERS)
    return _parse(absolute)  # a backslash is allowed: a server may mean it


def _check_length(text: str, longest: int) -> None:
    if len(text) > longest:
        raise _refused(f"The URL is longer than {longest:,} characters.")


def _parse(text: str) -> URL:
    _check_characters(text)
    match = ABSOLUTE.fullmatch(text)
    if not match:
        raise _refused("The URL must be absolute and begin with http:// or https://.")
    scheme, authority, path, query = match[1].lower(), match[2], match[3], match[4] or ""
    host, port = _authority(authority, DEFAULT_PORTS[scheme])
    return URL(scheme, host, port, _without_dots(_ascii(path)) + _ascii(query))


def _refused(sentence: str) -> Refused:
    return Refused("invalid_url", sentence)


def _check_characters(text: str) -> None:
    if " " in text:
        raise _refused("The URL contains a space.")
    if INVISIBLE.search(text):
        raise _refused("The URL contains an invisible character.")
    if text.isprintable():
        return
    for letter in text:
        if (kind := UNSEEN.get(unicodedata.category(letter))) and letter not in JOINERS:
            raise _refused(f"The URL contains {kind}.")


def _authority(authority: str, default_port: int) -> tuple[str, int]:
    if "@" in authority:
        raise _refused("The URL contains credentials.")
    match = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]*))?", authority, re.ASCII)
    if not match:
        raise _refused("The URL's host or port is malformed.")
    port = int(match[2].lstrip("0")[:6] or "0") if match[2] else default_port
    if not 1 <= port <= 65535:
        raise _refused("The URL's port is not between 1 and 65535.")
    return _host(match[1]), port


@lru_cache(maxsize=256)  # many URLs have the same few hosts
def _host(text: str) -> str:
    if not text:
        raise _refused("The URL has no host.")
    if SELECTORS.search(text):
        raise _refused("The URL's host contains an invisible character.")
    if text.startswith("["):
        return _ipv6(text[1:-1])
    name = _idna(text).lower().removesuffix(".")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", name.rpartition(".")[2]):
        return _ipv4(name)
    if len(name) > 253 or not re.fullmatch(r"([a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}", name):
        raise _refused("The URL's host is not a possible name.")
    return name


def _idna(host: str) -> str:
    if host.isascii():
        return host
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError:
        pass
    # It may still be an address, written with the digits and dots of another script.
    try:
        name = idna.uts46_remap(host)
    except UnicodeError:
        name = ""
    if not name or not name.isascii():
        raise _refused("The URL's host is not a possible name.")
    return name


def _ipv6(text: str) -> str:
    if "%" in text:
        raise _refused("The URL's address names a zone.")
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise _refused("The URL's host is not a possible address.") from None


def _ipv4(name: str) -> str:
    """Read an IPv4 address as inet_aton does: decimal, octal, hexadecimal, short."""
    parts = name.split(".")
    try:
        numbers = [_number(part) for part in parts]
    except ValueError:
        numbers = []
    if (
        not 1 <= len(numbers) <= 4
        or max(numbers[:-1], default=0) > 255
        or numbers[-1] >= 256 ** (5 - len(numbers))
    ):
        raise _refused("The URL's host is not a possible address.")
    value = numbers[-1] + sum(
        number << 8 * (3 - place) for place, number in enumerate(numbers[:-1])
    )
    return str(ipaddress.IPv4Address(value))


def _number(part: str) -> int:
    if re.fullmatch(r"0x[0-9a-f]{0,20}", part):
        return int(part[2:] or "0", 16)
    if not re.fullmatch(r"[0-9]{1,20}", part):
        raise ValueError("not a number")
    return int(part, 8 if part.startswith("0") else 10)


def _ascii(text: str) -> str:
    return text if text.isascii() else re.sub(r"[^\x00-\x7f]+", lambda found: quote(found[0]), text)


def _without_dots(path: str) -> str:
    """Resolve the segments `.` and `..` (RFC 3986, 5.2.4); empty segments are kept."""
    segments = path.split("/")[1:] if path else [""]
    kept: list[str] = []
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _location(value: bytes) -> str:
    """Read a Location as browsers do: percent-encode spaces and bytes outside ASCII in the path.

    The host is decoded as UTF-8.
    """
    [(start, rest)] = LOCATION.findall(value.strip(b" \t"))
    escaped = re.sub(rb"[ \x80-\xff]", lambda found: b"%%%02X" % found[0][0], rest)
    return str(start + escaped, "utf-8", "surrogateescape")
