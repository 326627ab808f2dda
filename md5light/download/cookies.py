"""Cookies during one download: some servers answer only requests that return their cookies."""

from __future__ import annotations

import re

from md5light.download.response import Response
from md5light.download.urls import URL

#: bounds of one download: its cookies, and the bytes of their names and values
MAX_COOKIES = 50
MAX_BYTES = 8 * 1024

#: name, value and attributes of a Set-Cookie (RFC 6265, 5.2), without control characters
SET_COOKIE = re.compile(r"([^\x00-\x20=;\x7f]+)[ \t]*=[ \t]*([^\x00-\x1f;\x7f]*)(.*)", re.DOTALL)
SECURE = re.compile(r";[ \t]*secure[ \t]*(?:;|$)", re.IGNORECASE)


class Cookies:
    """The cookies that the servers of one download have set, in memory.

    A cookie is sent only to the host that set it, and with `Secure` only over https. Domain, Path
    and expiry are ignored: no other host gets the cookie, and it ends with the download.
    """

    def __init__(self) -> None:
        self._cookies: dict[tuple[str, str], tuple[str, bool]] = {}
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._cookies)

    def keep(self, url: URL, response: Response) -> None:
        """Keep the cookies that the answer of `url` sets, as far as the bounds allow."""
        for line in response.headers.get("set-cookie", []):
            if match := SET_COOKIE.fullmatch(line):
                name, value, attributes = match.groups()
                self._set((url.host, name), value.rstrip(" \t"), bool(SECURE.search(attributes)))

    def header(self, url: URL) -> str:
        """Return the header line with the cookies for a request to `url`; empty without any."""
        pairs = [
            f"{name}={value}"
            for (host, name), (value, secure) in self._cookies.items()
            if host == url.host and (url.scheme == "https" or not secure)
        ]
        return f"Cookie: {'; '.join(pairs)}\r\n" if pairs else ""

    def _set(self, key: tuple[str, str], value: str, secure: bool) -> None:
        before = len(key[1]) + len(self._cookies[key][0]) if key in self._cookies else 0
        size = self._bytes - before + len(key[1]) + len(value)
        if size <= MAX_BYTES and (before or len(self._cookies) < MAX_COOKIES):
            self._cookies[key] = value, secure
            self._bytes = size
