"""What the thread of a download shares with the others: its progress and a way to end it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

from md5light.errors import Md5lightError, Stopped


class Transfer:
    """One attempt at a download, as other threads see it.

    `bytes_done` and `bytes_total` (None: not known) may be read at any time, `stop` called from any thread.
    """

    def __init__(self) -> None:
        self.bytes_done = 0
        self.bytes_total: int | None = None
        self._changed = threading.Condition()
        self._end: Md5lightError | None = None
        self._connection: socket.socket | None = None

    def stop(self) -> None:
        """Make the download raise Stopped at once, whatever it waits for."""
        self.end(Stopped("the download was stopped"))

    def end(self, error: Md5lightError) -> None:
        """Make the download raise `error`; the first call counts."""
        with self._changed:
            if self._end is None:
                self._end = error
                self._shut()
                self._changed.notify_all()

    def check(self) -> None:
        """Raise what the download was ended with.

        To be asked after every end of a connection: it may be our own doing and not the end of a body.
        """
        if self._end is not None:
            raise self._end

    def watch(self, connection: socket.socket | None) -> None:
        """From now on `connection` is what is shut down at the end; None before it is closed or given away."""
        with self._changed:
            self._connection = connection
            if self._end is not None:
                self._shut()
        if connection is not None:
            self.check()

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until `condition` holds (whoever makes it hold calls `notify`); raises when the download is ended."""
        with self._changed:
            self._changed.wait_for(lambda: self._end is not None or condition(), seconds)
        self.check()
        return bool(condition())

    def notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _shut(self) -> None:
        if self._connection is not None:
            # The method of plain sockets: SSLSocket's own drops the TLS state, and ciphertext would be read as body.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._connection, socket.SHUT_RDWR)
