"""The signals that ask a main loop for something: SIGTERM and SIGINT as a count, SIGHUP as a call.

SIGHUP asks daemons to read their configuration again, and comes when a terminal is closed. Here it
does nothing but a line in the log: its default would end the process.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable
from types import FrameType


class StopSignals:
    """Counts the requests to stop, and makes a file descriptor readable at each.

    So any loop can wait for them. The handlers do nothing else: what a signal interrupts is left
    in good order (signal(7)). Make it in the main thread; a forked child makes its own.
    """

    BOTH = (signal.SIGTERM, signal.SIGINT)

    def __init__(
        self, *heeded: signal.Signals, on_hangup: Callable[[], object] | None = None
    ) -> None:
        """Heed some of SIGTERM and SIGINT, ignore the other; `wait` calls `on_hangup` at SIGHUP."""
        self.count = 0
        self._hangups = 0
        self._on_hangup = on_hangup
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Written to at once, whenever the signal comes. Python calls a handler only when the main
        # thread runs: not while it begins to wait, nor when another thread took the signal.
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        for number in self.BOTH:
            signal.signal(number, self._count_stop if number in heeded else signal.SIG_IGN)
        signal.signal(signal.SIGHUP, self._count_hangup if on_hangup else signal.SIG_IGN)

    def fileno(self) -> int:
        return self._readable

    def wake_at(self, number: signal.Signals) -> None:
        """Let another signal, such as SIGCHLD, end a `wait`, too."""
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
        with contextlib.suppress(BlockingIOError):  # full of wakes that nobody has read yet
            os.write(self._writable, b"\0")

    def _count_stop(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal()
        self.count += 1

    def _count_hangup(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - signal()
        self._hangups += 1
