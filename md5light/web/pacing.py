"""Pacing: only one at a time of the threads with seconds of work competes with other requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: seconds between two pieces of work, during which other threads get the interpreter lock
PAUSE_SECONDS = 0.001


class Pacing:
    """Shared by the threads that read lists and write manifests.

    A thread that computes gives up the interpreter lock only every 5 ms. With four such threads
    each step of another request would wait four times as long as with one.
    """

    def __init__(self) -> None:
        self._place = threading.Lock()

    def each(self, pieces: Iterable[T]) -> Iterator[T]:
        """Yield `pieces`; each is computed while no other thread computes one."""
        remaining = iter(pieces)
        while True:
            with self._place:
                try:
                    piece = next(remaining)
                except StopIteration:
                    return
            yield piece
            time.sleep(PAUSE_SECONDS)
