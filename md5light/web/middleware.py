"""Middleware: the client's address, request ids, the access log, security headers, and errors.

Also the check that no page of another site made a browser send the request (CSRF).
"""

from __future__ import annotations

import ipaddress
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from md5light.config import Network
from md5light.logs import Log, request_id
from md5light.web.answers import ERRORS, Problem, error_body

log = Log(__name__)

StartResponse = Callable[..., Any]
Environ = dict[str, Any]
WSGI = Callable[[Environ, StartResponse], Iterable[bytes]]

#: the form of a request id that a client or a proxy may send
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: an address with its port, as some proxies write it; an IPv6 address in brackets
ADDRESS_AND_PORT = re.compile(r"\[(.+)\](?::\d+)?|([^:]+):\d+")

#: entries of X-Forwarded-For that are read, from its end
MAX_PROXIES = 16

#: characters of a header's value that are kept in a client's address, a message or the log
MAX_SHOWN = 200

#: characters of a path or a method in the log
MAX_LOGGED = 2000

#: added unless the answer sets them itself
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

#: `Sec-Fetch-Site` of a form on the service's own page, and of a request that a person typed
OWN_SITE = ("same-origin", "none")

#: waitress' name for the peer of a Unix socket
UNIX_PEER = "localhost"


def behind(proxies: Sequence[Network], app: WSGI) -> WSGI:
    """Wrap `app` so that a request through `proxies` has the address of its client, not theirs.

    The client is the last entry of X-Forwarded-For that is not one of `proxies`: the client itself
    may have sent the entries before it. Of X-Forwarded-Host and X-Forwarded-Proto the last entry
    counts. With any `proxies`, the peer of a Unix socket counts as one.
    """

    def serve(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        peer = _unmapped(environ["REMOTE_ADDR"])
        environ["REMOTE_ADDR"] = peer
        if proxies and (peer == UNIX_PEER or _is_in(peer, proxies)):
            environ["REMOTE_ADDR"] = _client(environ.get("HTTP_X_FORWARDED_FOR", ""), proxies, peer)
            if host := _last(environ.get("HTTP_X_FORWARDED_HOST", "")):
                environ["HTTP_HOST"] = host
            if (scheme := _last(environ.get("HTTP_X_FORWARDED_PROTO", ""))) in ("http", "https"):
                environ["wsgi.url_scheme"] = scheme
        return app(environ, start_response)

    return serve


def _client(forwarded_for: str, proxies: Sequence[Network], peer: str) -> str:
    client = peer
    for entry in reversed(forwarded_for.rsplit(",", MAX_PROXIES)[-MAX_PROXIES:]):
        named = entry.strip()[:MAX_SHOWN]
        if not named:
            continue
        match = ADDRESS_AND_PORT.fullmatch(named)
        client = _unmapped((match[1] or match[2]) if match else named)
        if not _is_in(client, proxies):
            break
    return client


def _last(header: str) -> str:
    return header.rpartition(",")[2].strip()[:MAX_SHOWN]


def _unmapped(address: str) -> str:
    """Return 192.0.2.1 for ::ffff:192.0.2.1, the form that a socket for both families has."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # not an address, e.g. `unknown`
        return False
    return any(parsed in network for network in networks)


def refuse_other_sites(environ: Mapping[str, Any], base_url: str) -> None:
    """Raise Problem if a page of another site made a browser send this request.

    Browsers send `Sec-Fetch-Site`, or only `Origin` over an unencrypted connection; a client that
    sends neither is not a browser. `base_url` counts as the service's own site, since a proxy may
    have changed `Host`. If it is set, another name in `Host` does not count: it may be a name of
    the other site that resolves to this machine (DNS rebinding).
    """
    site, origin = environ.get("HTTP_SEC_FETCH_SITE"), environ.get("HTTP_ORIGIN")
    if not site and origin is None:
        return
    host, public = _authority(environ.get("HTTP_HOST", "")), _authority(base_url)
    own = {public} if public and _is_name(host) else {public, host}
    sender = host if site and origin in (None, "null") else _authority(origin or "")
    foreign = site not in OWN_SITE if site else sender not in own - {""}
    if foreign or (public and sender not in own):
        raise _cross_site(site, origin, environ.get("HTTP_HOST"), base_url=base_url)


def _cross_site(*headers: str | None, base_url: str) -> Problem:
    site, origin, host = (text[:MAX_SHOWN] if text else "missing" for text in headers)
    log.warning("cross_site", site=site, origin=origin, host=host, base_url=base_url)
    return Problem(
        403,
        "cross_site",
        f"A page of another site sent the request: Origin is {origin}, Host is {host},"
        f" Sec-Fetch-Site is {site}, and [server] base_url is {base_url or 'not set'}."
        " Where a proxy changes Host, set base_url to the address that browsers show.",
    )


def _authority(url: str) -> str:
    """Return host and port of a URL or of a Host header, without the default ports."""
    netloc = url.rpartition("://")[2].partition("/")[0].lower()
    return re.sub(r":(80|443)\Z", "", netloc)


def _is_name(authority: str) -> bool:
    """Tell whether the host is a name that somebody else's name servers may resolve."""
    host = re.sub(r":[0-9]*\Z", "", authority).strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


def has_client_gone(environ: Environ) -> bool:
    """Tell whether the client has closed its connection while its request is being answered."""
    return bool(environ["waitress.client_disconnected"]())


def observed(app: WSGI) -> WSGI:
    """Wrap `app`: each request gets an id and a line in the log, an exception becomes a 500.

    The log has the path without its query, which may be secret.
    """

    def serve(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        identity = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        token = request_id.set(identity)
        begun = time.monotonic()
        answered = [0]

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            answered[0] = int(status[:3])
            said = {name.lower() for name, _ in headers}
            added = [header for header in SECURITY_HEADERS.items() if header[0].lower() not in said]
            return start_response(status, [*headers, ("X-Request-Id", identity), *added], *rest)

        try:
            return _answered(app, environ, start)
        finally:
            _log_access(environ, answered[0], time.monotonic() - begun)
            request_id.reset(token)

    return serve


def _answered(app: WSGI, environ: Environ, start: StartResponse) -> Iterable[bytes]:
    try:
        return app(environ, start)
    except Exception:
        log.exception("request_failed", **_request_line(environ))
        body = error_body(*ERRORS[500])
        headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        start("500 Internal Server Error", headers)
        return [body]


def _log_access(environ: Environ, status: int, seconds: float) -> None:
    """Log a request: at `debug` if it only reads and succeeds, else at `info`."""
    usual = environ["REQUEST_METHOD"] in ("GET", "HEAD") and 200 <= status < 400
    client = environ.get("REMOTE_ADDR", "")
    token = {"token": environ["REMOTE_USER"]} if "REMOTE_USER" in environ else {}
    write = log.debug if usual else log.info
    fields = {**_request_line(environ), "status": status, "client": client, **token}
    write("request", **fields, seconds=seconds)


def _request_line(environ: Environ) -> dict[str, str]:
    path = str(environ.get("bottle.raw_path", environ["PATH_INFO"]))
    return {"method": environ["REQUEST_METHOD"][:MAX_LOGGED], "path": path[:MAX_LOGGED]}
