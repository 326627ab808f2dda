"""An end that any thread can make of what another thread waits for: sockets and conditions."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from md5light.errors import Md5lightError


class Interrupt:
    """Ends one piece of work over a network, at any moment and from any thread.

    The working thread gives it each socket (`hold`) and asks it (`check`) after each end of a
    connection. Shutting a socket down ends what a thread waits for on it; closing it would not, and
    might hit a new socket of the same number.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._end: Md5lightError | None = None
        self._held: tuple[socket.socket, ...] = ()

    def end(self, error: Md5lightError) -> None:
        """Make the working thread raise `error`; the first call counts."""
        with self._changed:
            if self._end is None:
                self._end = error
                self._shut()
                self._changed.notify_all()

    def check(self) -> None:
        """Raise the error that the work was ended with, if it was.

        To be called after every end of a connection: this side may have made it.
        """
        if self._end is not None:
            raise self._end

    def hold(self, *connections: socket.socket) -> None:
        """Shut `connections` down at the end, and no longer those of the last call.

        To be called with none before a connection is closed or kept for later.
        """
        with self._changed:
            self._held = connections
            if self._end is not None:
                self._shut()
        if connections:
            self.check()

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until `condition` holds, and tell whether it does.

        A thread that makes it hold calls `notify`.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None or condition(), seconds)
        self.check()
        return bool(condition())

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _shut(self) -> None:
        for connection in self._held:
            # The method of plain sockets: SSLSocket's own drops the TLS state, and ciphertext would
            # be read as data.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
