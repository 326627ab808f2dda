"""The sockets that the server listens on: passed by a service manager, or opened here."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterable
from typing import Any

from md5light.config import http_url
from md5light.errors import ListenError
from md5light.logs import Log
from md5light.notify import passed_sockets

log = Log(__name__)

#: the prefix of a host that is the path of a Unix socket
UNIX = "unix:"

#: connections that may wait to be accepted
BACKLOG = 1024

#: ports to try until one is free at every address of a name
FREE_PORT_TRIES = 20

#: a Unix socket is accessible to the service's user and to the group of the socket
UNIX_UMASK = 0o117

#: seconds within which another server on a Unix socket must accept
CONNECT_SECONDS = 1.0

#: family and address of a socket, as bind() takes them
Address = tuple[int, tuple[Any, ...]]


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return the sockets that the service manager passed, or open those for `host` and `port`.

    Raises ListenError if there is none.
    """
    passed = passed_sockets()
    for each in passed:
        families = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if each.family not in families or each.type != socket.SOCK_STREAM:
            raise ListenError("can't listen on the socket that was passed: it is no stream socket")
    if passed:
        return passed
    return [_unix(host.removeprefix(UNIX))] if host.startswith(UNIX) else _internet(host, port)


def url_of(listening: socket.socket) -> str:
    """Return the URL of a socket for clients."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"{UNIX}{os.fsdecode(name)}"
    return http_url(*name[:2])


# --- TCP ------------------------------------------------------------------------------------------


def _internet(host: str, port: int) -> list[socket.socket]:
    """Listen on every available address of `host`, all on one port."""
    addresses = _addresses(host, port)
    for _ in range(FREE_PORT_TRIES):
        sockets, failures = _bound(addresses)
        collided = any(error.errno == errno.EADDRINUSE for _, error in failures)
        if port or not sockets or not collided:
            break
        for each in sockets:
            each.close()
    if not sockets:
        raise _failed(http_url(host, port), failures[0][1])
    for address, error in failures:
        log.warning("not_listening", url=http_url(address, port), reason=_reason(error))
    return sockets


def _addresses(host: str, port: int) -> list[Address]:
    """Return the addresses of `host`, each once; `::` includes all IPv4 addresses."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _failed(http_url(host, port), error) from None
    addresses = [(family, address) for family, _, _, _, address in found]
    if addresses[0][1][0] == "::":
        addresses.append((socket.AF_INET, ("0.0.0.0", port)))  # noqa: S104 - `::` means it
    return list(dict.fromkeys(addresses))


def _bound(addresses: Iterable[Address]) -> tuple[list[socket.socket], list[tuple[str, OSError]]]:
    """Bind those of `addresses` that are available, all to the port of the first one."""
    sockets: list[socket.socket] = []
    failures = []
    for family, (host, port, *scope) in addresses:
        chosen = sockets[0].getsockname()[1] if sockets else port
        address = (host, chosen, *scope)
        try:
            sockets.append(socket.create_server(address, family=family, backlog=BACKLOG))
        except OSError as error:
            failures.append((host, error))
    return sockets, failures


# --- Unix sockets ---------------------------------------------------------------------------------


def _unix(path: str) -> socket.socket:
    """Listen at `path`; replaces a socket file that no server uses any more."""
    listening = socket.socket(socket.AF_UNIX)
    before = os.umask(UNIX_UMASK)
    try:
        _remove_stale(path)
        listening.bind(path)
    except OSError as error:
        listening.close()
        raise _failed(f"{UNIX}{path}", error) from None
    finally:
        os.umask(before)
    listening.listen(BACKLOG)
    return listening


def _remove_stale(path: str) -> None:
    """Remove the socket file of a server that was killed."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as client:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind() will report that it is in use
        client.settimeout(CONNECT_SECONDS)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


# --- errors ---------------------------------------------------------------------------------------


def _failed(url: str, error: OSError) -> ListenError:
    return ListenError(f"can't listen on {url}: {_reason(error)}")


def _reason(error: OSError) -> str:
    """Return the system's message; that of create_server() repeats the address."""
    if error.errno and error.errno > 0:  # getaddrinfo's numbers are negative
        return os.strerror(error.errno)
    return error.strerror or str(error)
