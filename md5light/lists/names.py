"""Names of files: escaping as in GNU's tools, joining to a base URL, and names made from a URL."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from md5light.errors import Refused

_ABSOLUTE = re.compile(r"https?://[^/?#]", re.IGNORECASE | re.ASCII)
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE | re.ASCII)
_BASE = re.compile(r"(https?://[^/?#\s]+)([^?#\s]*)", re.IGNORECASE | re.ASCII)
_PARTS = re.compile(r"https?://([^/?#]*)([^?#]*)(\?[^#]*)?", re.IGNORECASE | re.ASCII)

_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\r": "\\r"}
_UNESCAPES = {escape: letter for letter, escape in _ESCAPES.items()}

#: characters that stay percent-encoded: file names can't have them, or terminals obey them
_UNFIT = re.compile(r"[\x00-\x1f/\x7f-\x9f]")


def is_absolute(url: str) -> bool:
    return _ABSOLUTE.match(url) is not None


class Base:
    """The URL that relative names are joined to: a directory, with or without its last `/`."""

    def __init__(self, url: str) -> None:
        """Raise Refused("invalid_base") unless it is an absolute URL without query and fragment."""
        match = _BASE.fullmatch(url)
        if not match:
            raise Refused(
                "invalid_base",
                "The base must be an absolute http or https URL without query and fragment.",
            )
        self._host = match[1]
        self._directory = match[1] + match[2].removesuffix("/") + "/"

    def join(self, reference: str) -> str:
        """Join a relative URL, byte for byte; one that begins with `/` replaces the base's path."""
        if _SCHEME.match(reference):
            raise Refused("invalid_url", "The URL must begin with http:// or https://.")
        if reference.startswith("/"):
            return self._host + reference
        while reference.startswith("./"):
            reference = reference[2:].lstrip("/")
        return self._directory + reference

    def join_name(self, name: str) -> str:
        """Join the name of a file: it is percent-encoded."""
        return self.join(name if _SCHEME.match(name) else quote(name))


def escape(name: str) -> tuple[str, str]:
    """Return the prefix of md5sum's line and the escaped name (GNU coreutils 9)."""
    escaped = re.sub(r"[\\\n\r]", lambda found: _ESCAPES[found[0]], name)
    return ("\\" if escaped != name else "", escaped)


def unescape(name: str) -> str:
    """Undo `escape`; raises Refused("invalid_name") for an escape that GNU's tools don't write."""
    if not re.fullmatch(r"(?:[^\\]|\\[\\nr])*", name):
        raise Refused("invalid_name", "The name has an escape that is none of \\\\, \\n and \\r.")
    return re.sub(r"\\.", lambda found: _UNESCAPES[found[0]], name)


def path_of(url: str) -> str:
    """Return the path under which `wget -x` stores a URL: host, path and query."""
    host, path, query = _parts(url)
    return "/".join([host.lower(), *_segments(path)]) + unquote_name(query)


def basename_of(url: str) -> str:
    """Return the last segment of a URL's path; `index.html` if the path ends with `/`."""
    _, path, _ = _parts(url)
    return _segments(path)[-1]


def unquote_name(segment: str) -> str:
    """Percent-decode, except control characters and `/`, and nothing that is not UTF-8."""
    try:
        name = unquote(segment, errors="strict")
    except UnicodeDecodeError:
        return segment
    return _UNFIT.sub(lambda found: quote(found[0], safe=""), name)


def _parts(url: str) -> tuple[str, str, str]:
    host, path, query = _PARTS.findall(url)[0]
    return host, path, query


def _segments(path: str) -> list[str]:
    """Return the path's decoded segments, at least one; resolves dots (RFC 3986, 5.2.4)."""
    segments: list[str] = []
    *directories, last = path.removeprefix("/").split("/")
    for segment in map(unquote_name, directories):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    last = unquote_name(last)
    if last == "..":
        del segments[-1:]
    return [*segments, "index.html" if last in ("", ".", "..") else last]
