"""The session with a server: its URL, the user's password for it, and TLS."""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import unquote, urlsplit

from requests import Session
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_netrc_auth

from md5light import __version__, tls
from md5light.errors import Refused


def open_session(location: str, ca_file: str) -> tuple[str, Session]:
    """Return the server's URL without a password, and a session that knows it.

    The password is that in the URL `location`, or of ~/.netrc. Raises Refused if `location` is no
    URL, or `ca_file` holds no certificate.
    """
    url, credentials = _parse(location)
    session = Session()
    session.headers["User-Agent"] = f"md5light/{__version__}"
    session.auth = HTTPBasicAuth(*credentials) if credentials else None
    if url.startswith("https:"):
        session.mount("https://", _Adapter(_context(ca_file)))
    return url, session


class _Adapter(HTTPAdapter):
    """Connects with a TLS context of ours, also through a proxy."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, ssl_context=self._context, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=self._context, **options)


def _context(ca_file: str) -> ssl.SSLContext:
    try:
        return tls.make_context(ca_file)
    except OSError as error:  # ssl.SSLError is one
        why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise Refused("wrong_usage", f"--cafile {ca_file}: {why}") from None


def _parse(location: str) -> tuple[str, tuple[bytes, bytes] | None]:
    """Return the URL of the server, and the user's name and password for it."""
    try:
        parts = urlsplit(location)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        right = parts.scheme in ("http", "https") and all(0 < len(each) < 64 for each in labels)
        _ = parts.port
    except ValueError:
        right = False
    if not right or parts.query or parts.fragment or not re.fullmatch(r"[!-~]+", location):
        raise Refused("wrong_usage", "the server must be an http or https URL, see --server")
    userinfo, _, host = parts.netloc.rpartition("@")
    url = f"{parts.scheme}://{host}{parts.path.rstrip('/')}"
    name, _, password = userinfo.partition(":")
    pair = (unquote(name), unquote(password)) if userinfo else get_netrc_auth(url)
    # As bytes: requests would encode text as Latin-1 (RFC 7617, 2.1).
    return url, (pair[0].encode(), pair[1].encode()) if pair else None
