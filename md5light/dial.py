"""Connecting to the quickest of a name's addresses: Happy Eyeballs, version 2 (RFC 8305)."""

from __future__ import annotations

import errno
import itertools
import math
import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from md5light.interrupt import Interrupt

#: an entry of getaddrinfo: family, type, protocol, canonical name, socket address
AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]

#: seconds until the next address is tried as well (RFC 8305, section 5: Connection Attempt Delay)
NEXT_SECONDS = 0.25
#: addresses to try at most: a name may have thousands
MAX_ADDRESSES = 6


def connect(addresses: list[AddressInfo], seconds: float, interrupt: Interrupt) -> socket.socket:
    """Connect to the first of `addresses` that answers, within `seconds` for all of them.

    The next address is tried when the one before has failed or has not answered for a while. Raises
    TimeoutError, the OSError of the address that failed last, or the error of `interrupt`; then
    `interrupt` holds no socket.
    """
    with _Race(interrupt) as race:
        return race.run(deque(in_turn(addresses)[:MAX_ADDRESSES]), time.monotonic() + seconds)


def in_turn(addresses: Iterable[AddressInfo]) -> list[AddressInfo]:
    """Alternate between the families, beginning with that of the first (RFC 8305, section 4)."""
    families: dict[Any, list[AddressInfo]] = {}
    for address in addresses:
        families.setdefault(address[0], []).append(address)
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address]


class _Race:
    """Connections being opened; the end of the `with` block closes all but the winner."""

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self._opening: dict[int, socket.socket] = {}
        self._poll = select.poll()
        self._failure: OSError = TimeoutError()

    def __enter__(self) -> _Race:
        return self

    def __exit__(self, *_: object) -> None:
        self._interrupt.hold()
        for connection in self._opening.values():
            connection.close()

    def run(self, addresses: deque[AddressInfo], deadline: float) -> socket.socket:
        while addresses or self._opening:
            if addresses:
                self._start(addresses.popleft())
            pause = time.monotonic() + NEXT_SECONDS if addresses else deadline
            if winner := self._wait(min(pause, deadline)):
                return winner
            if time.monotonic() >= deadline:
                raise TimeoutError
        raise self._failure

    def _start(self, address: AddressInfo) -> None:
        family, kind, protocol, _, where = address
        try:
            connection = socket.socket(family, kind, protocol)
        except OSError as error:  # such as a family that this machine does not have
            self._failure = error
            return
        self._opening[connection.fileno()] = connection
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._interrupt.hold(*self._opening.values())
        error_number = connection.connect_ex(where)
        self._interrupt.check()  # it may have ended before connect, when nothing was open to shut
        if error_number in (0, errno.EINPROGRESS):
            self._poll.register(connection, select.POLLOUT)
        else:
            self._drop(connection, error_number)

    def _wait(self, until: float) -> socket.socket | None:
        """Return the first open connection; None at `until` or when one has failed."""
        while self._opening and (left := until - time.monotonic()) > 0:
            for number, _ in self._poll.poll(math.ceil(left * 1000)):
                self._interrupt.check()
                connection = self._opening[number]
                error_number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not error_number:
                    return self._opening.pop(number)
                self._poll.unregister(number)
                self._drop(connection, error_number)
                return None
        return None

    def _drop(self, connection: socket.socket, error_number: int) -> None:
        self._failure = OSError(error_number, os.strerror(error_number))
        del self._opening[connection.fileno()]
        self._interrupt.hold(*self._opening.values())
        connection.close()
