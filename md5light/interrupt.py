"""Lets any thread end work in another thread that waits for sockets or conditions."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from md5light.errors import Md5lightError


class Interrupt:
    """Ends one piece of network work, at any moment and from any thread.

    The working thread registers each socket (`hold`) and calls `check` after each end of a
    connection. A shutdown wakes a thread that waits for the socket; a close would not, and might
    hit a new socket with the same number.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._end: Md5lightError | None = None
        self._held: tuple[socket.socket, ...] = ()

    def end(self, error: Md5lightError) -> None:
        """Make the working thread raise `error`; the first call counts."""
        with self._lock:
            if self._end is None:
                self._end = error
                self._shut()
                self._changed.notify_all()

    def check(self) -> None:
        """Raise the error that was given to `end`, if any.

        Call it after every end of a connection: `end` may have caused it.
        """
        if self._end is not None:
            raise self._end

    def hold(self, *connections: socket.socket) -> None:
        """Register `connections`, which `end` shuts down, in place of those of the last call.

        Call it without any before a connection is closed or kept for reuse.
        """
        with self._lock:
            self._held = connections
            if self._end is not None:
                self._shut()
        if connections:
            self.check()

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait for `condition`, at most `seconds`; return whether it is true.

        A thread that makes it true must call `notify`.
        """
        with self._lock:
            self._changed.wait_for(lambda: self._end is not None or condition(), seconds)
        self.check()
        return bool(condition())

    def notify(self) -> None:
        with self._lock:
            self._changed.notify_all()

    def _shut(self) -> None:
        for connection in self._held:
            # The plain socket's method: SSLSocket's own drops the TLS state, and then ciphertext
            # would be read as data.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)
