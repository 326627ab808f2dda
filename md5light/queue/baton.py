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
import multiprocessing
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multiprocessing.synchronize import BoundedSemaphore

#: seconds that a process waits for the baton, longer than most transactions take
WAIT_SECONDS = 0.02


class Baton:
    """What a process of a pool holds while it writes, in a `with` block.

    A pool makes one before it forks. Where the system has no semaphores for several processes (no
    /dev/shm) it is without effect.
    """

    def __init__(self, wait_seconds: float = WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._semaphore: BoundedSemaphore | threading.BoundedSemaphore
        try:
            self._semaphore = multiprocessing.get_context("fork").BoundedSemaphore(1)
        except OSError:
            self._semaphore = threading.BoundedSemaphore(1)

    def __enter__(self) -> None:
        self._semaphore.acquire(timeout=self._wait_seconds)

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ValueError):  # another process has passed it on, too
            self._semaphore.release()
