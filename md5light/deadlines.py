"""Deadlines: one thread ends every block that takes longer than a fixed time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator


class Deadlines:
    """Ends each block that takes longer than `seconds`.

    Its thread starts at the first `watch`; a fork does not inherit it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        # In the order of their deadlines, since all have the same time.
        self._ends: dict[object, tuple[float, Callable[[], object]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    @contextlib.contextmanager
    def watch(self, end: Callable[[], object]) -> Iterator[None]:
        """Call `end` from another thread, once or more, at the deadline; never after the block."""
        key = object()
        with self._lock:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                thread.start()
                self._thread = thread  # set only now, so that a failed start is tried again
            self._ends[key] = time.monotonic() + self._seconds, end
        try:
            yield
        finally:
            with self._lock:
                del self._ends[key]

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        with self._lock:
            while not self._closed:
                # Blocks added during this wait have later deadlines than its end.
                self._changed.wait(self._expire())

    def _expire(self) -> float:
        """End overdue blocks; return in how many seconds the next may be overdue."""
        now = time.monotonic()
        for deadline, end in self._ends.values():
            if deadline > now:
                return deadline - now
            end()
        return self._seconds
