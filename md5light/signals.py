"""SIGTERM and SIGINT as a plain count that a main loop reads."""

from __future__ import annotations

import contextlib
import os
import select
import signal
from types import FrameType


class StopSignals:
    """Counts the requests to stop, and makes a file descriptor readable at each, so that any loop can wait for them.

    The handlers do nothing else: whatever a signal interrupts is left in good order (signal(7)). To be made in the
    main thread; a forked child makes its own.
    """

    BOTH = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, *heeded: signal.Signals) -> None:
        self.count = 0
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # Written to at once, wherever the signal falls. Python calls _note only when the main thread gets that far,
        # which one that is just beginning to wait, or whose signal another thread took, would not.
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        for number in self.BOTH:
            signal.signal(number, self._note if number in heeded else signal.SIG_IGN)

    def fileno(self) -> int:
        return self._readable

    def wait(self, timeout: float | None, *others: int) -> bool:
        """Wait for a signal, a `wake` or one of the descriptors `others`; True when one of these is readable."""
        poll = select.poll()
        for descriptor in (self._readable, *others):
            poll.register(descriptor, select.POLLIN)
        ready = {
            descriptor for descriptor, _ in poll.poll(None if timeout is None else timeout * 1000)
        }
        if self._readable in ready:
            os.read(self._readable, 64)
        return bool(ready - {self._readable})

    def wake(self) -> None:
        """End a `wait` from another thread."""
        with contextlib.suppress(BlockingIOError):  # full of wakes that nobody has read yet
            os.write(self._writable, b"\0")

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the form signal() asks for
        self.count += 1
