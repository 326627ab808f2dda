"""What every request goes through: whose it is, its id, the access log, security headers, and the last resort."""

from __future__ import annotations

import ipaddress
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from md5light.config import Network
from md5light.logs import Log, request_id
from md5light.web.answers import ERRORS, error_body

log = Log(__name__)

StartResponse = Callable[..., Any]
WSGI = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

#: what is taken over as a request's id from a client or a proxy
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

#: an address with its port, as some proxies write it; an IPv6 address in brackets
ADDRESS_AND_PORT = re.compile(r"\[(.+)\](?::\d+)?|([^:]+):\d+")

#: for whatever an answer does not say otherwise
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def behind(proxies: Sequence[Network], app: WSGI) -> WSGI:
    """Wrap `app` so that a request that comes through one of `proxies` has the address of its client.

    That is the last entry of X-Forwarded-For, the proxy's own; what stands before it came with the request.
    """

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        named = environ.get("HTTP_X_FORWARDED_FOR", "").rpartition(",")[2].strip()
        if named and _is_in(environ["REMOTE_ADDR"], proxies):
            match = ADDRESS_AND_PORT.fullmatch(named)
            environ["REMOTE_ADDR"] = (match[1] or match[2]) if match else named
        return app(environ, start_response)

    return serve


def _is_in(address: str, networks: Sequence[Network]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # such as the peer of a Unix socket
        return False
    return any(parsed in network for network in networks)


def observed(app: WSGI) -> WSGI:
    """Wrap `app` so that each request has an id and a line in the log, and no client ever sees a traceback.

    The log holds the path without its query: that may be anybody's secret.
    """

    def serve(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
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


def _answered(app: WSGI, environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
    try:
        return app(environ, start)
    except Exception:
        log.exception("request_broke", method=environ["REQUEST_METHOD"], path=environ["PATH_INFO"])
        body = error_body(*ERRORS[500])
        start(
            "500 Internal Server Error",
            [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
        )
        return [body]


def _log_access(environ: dict[str, Any], status: int, seconds: float) -> None:
    path = environ.get("bottle.raw_path", environ["PATH_INFO"])
    client = environ.get("REMOTE_ADDR", "")
    log.info(
        "request",
        method=environ["REQUEST_METHOD"],
        path=path,
        status=status,
        client=client,
        seconds=seconds,
    )
