"""Lingering: a connection is closed a moment after a refusal (RFC 9112, 9.6).

Bytes of the refused body that come after the close would reset the connection, and a proxy before
us would lose our answer.
"""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections import deque

#: seconds for which such a connection stays open; what it brings is not read, so a client that
#: sends much waits for so long
LINGER_SECONDS = 0.5

#: such connections at once; one more closes the oldest
MAX_LINGERING = 32


class Lingering:
    """The connections that stay open for a moment; only the thread of the loop uses it."""

    def __init__(self) -> None:
        #: in the order of their ends
        self._kept: deque[tuple[float, socket.socket]] = deque()

    def keep(self, connection: socket.socket) -> None:
        """End our side of `connection`, and keep it from being closed with its descriptor."""
        with contextlib.suppress(OSError):  # no descriptor is left, or the client has gone
            twin = connection.dup()
            self._kept.append((time.monotonic() + LINGER_SECONDS, twin))
            twin.shutdown(socket.SHUT_WR)

    def close_old(self) -> float:
        """Close those that have been kept long enough; return how soon the next will have been."""
        now = time.monotonic()
        while self._kept and (self._kept[0][0] <= now or len(self._kept) > MAX_LINGERING):
            self._kept.popleft()[1].close()
        return self._kept[0][0] - now if self._kept else math.inf
