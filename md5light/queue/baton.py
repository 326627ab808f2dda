"""The baton: lets the processes of a pool write to an SQLite file one after the other.

SQLite has one lock for all writers and no queue for it: whoever finds it taken must try again, and
sleeps too long or wakes in vain. So the processes of a pool pass a baton: whoever is about to ask
for the lock takes it, and the system wakes the next one as soon as it is passed on.

The baton is only a hint, the lock is what excludes other writers. A process asks for the lock even
without the baton if it has waited for that in vain: its holder may have died or stopped, or writes
for long. After that it passes the baton on all the same.
"""

from __future__ import annotations

import contextlib
from typing import Protocol

#: seconds that a process waits for the baton, longer than most transactions take
WAIT_SECONDS = 0.02


class Semaphore(Protocol):
    """A bounded semaphore of one place, for the processes that share the baton."""

    def acquire(self, *, timeout: float) -> bool: ...
    def release(self) -> None: ...


class Baton:
    """What a process holds while it writes, in a `with` block."""

    def __init__(self, semaphore: Semaphore, wait_seconds: float = WAIT_SECONDS) -> None:
        self._semaphore = semaphore
        self._wait_seconds = wait_seconds

    def __enter__(self) -> None:
        self._semaphore.acquire(timeout=self._wait_seconds)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # another process has passed it on, too
            self._semaphore.release()
