"""The sockets that the server listens on: handed over by a service manager, or opened here."""

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

#: what a host begins with that is the path of a Unix socket
UNIX = "unix:"

#: connections that may wait to be accepted
BACKLOG = 1024

#: ports that are tried for one that is free at every address of a name
FREE_PORT_TRIES = 20

#: A Unix socket is open to the service's user, and to the group that its folder gives it.
UNIX_UMASK = 0o117

#: seconds until another server must have accepted, where one listens on a Unix socket
CONNECT_SECONDS = 1.0

#: family and address of a socket, as bind() takes them
Address = tuple[int, tuple[Any, ...]]


def listening_sockets(host: str, port: int) -> list[socket.socket]:
    """Return the sockets that the service manager passed, else those for `host` and `port`.

    Raises ListenError where there is none.
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
    """Write where clients reach a socket."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"{UNIX}{os.fsdecode(name)}"
    return http_url(*name[:2])


# --- TCP ------------------------------------------------------------------------------------------


def _internet(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of `host` that can be had, all on one port."""
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
    """Look `host` up, each address once; `::` means every address of the machine, IPv4 as well."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise _failed(http_url(host, port), error) from None
    addresses = [(family, address) for family, _, _, _, address in found]
    if addresses[0][1][0] == "::":
        addresses.append((socket.AF_INET, ("0.0.0.0", port)))  # noqa: S104 - what `::` asks for
    return list(dict.fromkeys(addresses))


def _bound(addresses: Iterable[Address]) -> tuple[list[socket.socket], list[tuple[str, OSError]]]:
    """Bind each of `addresses` that can be bound, all to the port that the first one got."""
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
    """Listen at `path`, in the place of a socket that nobody listens on any more."""
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
    """Remove the socket that a server which did not end in order has left behind."""
    with contextlib.suppress(FileNotFoundError), socket.socket(socket.AF_UNIX) as client:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return  # bind() says that it is in use
        client.settimeout(CONNECT_SECONDS)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


# --- errors ---------------------------------------------------------------------------------------


def _failed(url: str, error: OSError) -> ListenError:
    return ListenError(f"can't listen on {url}: {_reason(error)}")


def _reason(error: OSError) -> str:
    """Return the system's words; create_server() repeats the address in its own."""
    if error.errno and error.errno > 0:  # that of a name which isn't found is none of the system's
        return os.strerror(error.errno)
    return error.strerror or str(error)
