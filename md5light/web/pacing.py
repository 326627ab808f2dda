"""Pacing: of the threads that compute for seconds, one at a time competes with other requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

#: seconds between two pieces of work, in which threads that wait for the interpreter get it
PAUSE_SECONDS = 0.001


class Pacing:
    """Shared by the threads that read lists and write manifests.

    All threads share one core and one interpreter lock, which a thread that computes gives up only
    every 5 ms. With four of them each step of another request would wait four times as long.
    """

    def __init__(self) -> None:
        self._place = threading.Lock()

    def each(self, pieces: Iterable[T]) -> Iterator[T]:
        """Yield each of `pieces`, which is computed while no other thread computes one."""
        remaining = iter(pieces)
        while True:
            with self._place:
                try:
                    piece = next(remaining)
                except StopIteration:
                    return
            yield piece
            time.sleep(PAUSE_SECONDS)
