"""The bell: a datagram beside the database file that wakes idle workers of this machine.

A commit of new jobs rings; idle workers listen. A ring may get lost (a full buffer, another
machine), so listeners also poll: the bell only makes them faster. In a folder that can't have Unix
sockets (on some shared and network file systems) they only poll.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from md5light.logs import Log
from md5light.owner import give_to_owner
from md5light.queue.baton import Baton
from md5light.queue.database import Listener

log = Log(__name__)


class BellListener(Listener):
    """Waits for the bell of one SQLite file.

    Each ring wakes one of the processes that share the listener.
    """

    def __init__(self, database: Path, baton: Baton | None = None) -> None:
        self._path = database.with_name(f"{database.name}-bell-{os.getpid()}")
        self._owner = os.getpid()
        self.baton = baton
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        try:
            self._bind()
        except OSError as error:
            log.warning("bell_unavailable", folder=database.parent, reason=error.strerror)

    def wait(self, timeout: float, stop: int) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(stop, select.POLLIN)
        poll.poll(timeout * 1000)
        with contextlib.suppress(BlockingIOError):  # another process of the pool has read it
            self._socket.recv(1)

    def close(self) -> None:
        self._socket.close()
        if os.getpid() == self._owner:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _bind(self) -> None:
        self._path.unlink(missing_ok=True)
        with _address(self._path) as address:
            self._socket.bind(address)
        give_to_owner(self._path, self._path.parent)


def ring(database: Path, times: int) -> None:
    """Notify each pool that listens beside `database` of `times` new jobs; never waits or fails."""
    beginning = f"{database.name}-bell-"
    with contextlib.suppress(OSError):
        for name in os.listdir(database.parent):
            if name.startswith(beginning):
                _ring_one(database.with_name(name), times)


def _ring_one(path: Path, times: int) -> None:
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as bell,
    ):
        bell.setblocking(False)
        with _address(path) as address:
            _send(bell, address, times, path)


def _send(bell: socket.socket, address: str, times: int, path: Path) -> None:
    try:
        for _ in range(times):
            bell.sendto(b"!", address)
    except ConnectionRefusedError:
        if path.is_socket():  # left behind by a pool that was killed
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Yield a socket address for `path` that fits into the 108 bytes of unix(7), however deep."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
