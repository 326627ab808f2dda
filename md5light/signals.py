"""Signals to a main loop: SIGTERM and SIGINT are counted, SIGHUP calls a function.

SIGHUP conventionally makes a daemon read its configuration again, and it is also sent when a
terminal is closed. Here it only writes a line to the log: its default would end the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable


class StopSignals:
    """Counts requests to stop and makes a file descriptor readable, for which any loop can wait.

    The handlers do nothing else, so they are safe wherever the signal interrupts the program
    (signal(7)). Create it in the main thread; a forked child creates its own.
    """

    BOTH = (signal.SIGTERM, signal.SIGINT)

    def __init__(
        self, *heeded: signal.Signals, on_hangup: Callable[[], object] | None = None
    ) -> None:
        """Count those of SIGTERM and SIGINT in `heeded`, ignore the others.

        `wait` calls `on_hangup` after a SIGHUP.
        """
        self.count = 0
        self._hangups = 0
        self._on_hangup = on_hangup
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The C handler writes to it at once. Python's handlers run only when the main thread does:
        # not if it is about to wait, nor if another thread received the signal.
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        for number in self.BOTH:
            signal.signal(number, self._count_stop if number in heeded else signal.SIG_IGN)
        signal.signal(signal.SIGHUP, self._count_hangup if on_hangup else signal.SIG_IGN)

    def fileno(self) -> int:
        return self._readable

    def wake_at(self, number: signal.Signals) -> None:
        """Make another signal, such as SIGCHLD, end a `wait`, too."""
        signal.signal(number, lambda *_: None)

    def wait(self, timeout: float | None, *others: int) -> bool:
        """Wait for a signal, a `wake` or one of the descriptors `others`.

        True when one of these is readable.
        """
        poll = select.poll()
        for descriptor in (self._readable, *others):
            poll.register(descriptor, select.POLLIN)
        ready = {
            descriptor for descriptor, _ in poll.poll(None if timeout is None else timeout * 1000)
        }
        if self._readable in ready:
            os.read(self._readable, 64)
        if self._hangups and self._on_hangup:
            self._hangups = 0
            self._on_hangup()
        return bool(ready - {self._readable})

    def wake(self) -> None:
        """End a `wait` from another thread."""
        with contextlib.suppress(BlockingIOError):  # full of unread wakes
            os.write(self._writable, b"\0")

    def _count_stop(self, *_: object) -> None:
        self.count += 1

    def _count_hangup(self, *_: object) -> None:
        self._hangups += 1
