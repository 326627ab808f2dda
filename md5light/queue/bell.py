"""Waking idle workers of this machine: a datagram beside the database, to be had for almost nothing.

Whoever commits new work rings; whoever waits for work listens. A ring may get lost (a full buffer, another
machine), so listeners poll as well: ringing only makes them quick.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path

from md5light.queue.database import Listener


class BellListener(Listener):
    """Hears the bell of one SQLite file; of the processes that share the socket each ring reaches one."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-bell-{os.getpid()}")
        self._owner = os.getpid()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        self._path.unlink(missing_ok=True)
        with _address(self._path) as address:
            self._socket.bind(address)

    def wait(self, timeout: float, stop: int) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(stop, select.POLLIN)
        poll.poll(timeout * 1000)
        with contextlib.suppress(BlockingIOError):  # a sibling was quicker
            self._socket.recv(1)

    def close(self) -> None:
        self._socket.close()
        if os.getpid() == self._owner:
            self._path.unlink(missing_ok=True)


def ring(database: Path, times: int) -> None:
    """Tell every pool that listens beside `database` of `times` new jobs; never waits, never fails."""
    for path in database.parent.glob(f"{_literal(database.name)}-bell-*"):
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


def _literal(name: str) -> str:
    return "".join(f"[{character}]" if character in "*?[" else character for character in name)


@contextlib.contextmanager
def _address(path: Path) -> Iterator[str]:
    """Give a socket address for `path` that fits sun_path's 108 bytes, however deep the folder (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
